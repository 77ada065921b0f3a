"""The training loop, the same for base learners and few-shot models.

The batch and the random draws of a step depend only on (seed, epoch, step), so a resumed run continues as if
it had never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from fewseg.dataset.loading.base_classes import BaseBatch
from fewseg.dataset.loading.batches import EpochBatches
from fewseg.dataset.loading.few_shot import EpisodeBatch
from fewseg.engine.setup.interrupt import Check, Interrupted, StopRequest
from fewseg.engine.setup.loader import Loader, worker_deaths
from fewseg.engine.training.length import Length
from fewseg.engine.training.optimisation import PolySchedule
from fewseg.engine.training.pace import Pace
from fewseg.engine.training.parallel import Wrapped
from fewseg.engine.training.safe_point import SafePoint
from fewseg.engine.training.saving import Memories, Snapshots, memories_alone
from fewseg.engine.training.snapshot import Progress
from fewseg.engine.training.step import NotFiniteError, training_step
from fewseg.engine.training.tensorboard import TensorBoardWriter
from fewseg.engine.training.unseen import Unseen
from fewseg.model.contract import Network
from fewseg.util import distributed
from fewseg.util.checkpoint import first_line
from fewseg.util.config.schema import Train
from fewseg.util.live import Live
from fewseg.util.log import get_log
from fewseg.util.progress import progress

Validate = Callable[[float, Check], tuple[float, Mapping[str, float]]]
"""Completed epochs, a check that may stop it -> the score that selects snapshots, and all metrics."""


class TrainingLoop:
    """Runs the steps, validations and snapshots of a training.

    Args:
        model: the model on its device.
        optimizer: the optimizer of its parameters.
        schedule: the schedule of the learning rates.
        loader, batches: this process's share of the data, and its batch sampler.
        validate: scores the model; None where there is nothing to score it on.
        snapshots, board: the files of weights and of TensorBoard.
        reached: the progress to start from.
        settings: section ``Train`` of the config.
    """

    def __init__(
        self,
        model: Network,
        optimizer: Optimizer,
        schedule: PolySchedule,
        loader: Loader,
        batches: EpochBatches,
        validate: Validate | None,
        snapshots: Snapshots,
        board: TensorBoardWriter,
        reached: Progress,
        settings: Train,
    ) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.loader, self.batches, self.validate = loader, batches, validate
        self.snapshots, self.reached, self.settings, self.device = snapshots, reached, settings, model.device
        self.length = Length.of(settings, len(batches))
        self.forward = Wrapped(model, compiled=settings.compile, reduced=settings.amp)
        self.safe_point, self.unseen = SafePoint(model, optimizer), Unseen()
        self.gathered: Memories | None = None
        self.sums: dict[str, float] = {}
        self.board, self.pace, self.live = board, Pace(), Live(snapshots.folder)
        self.log = get_log("train")

    @property
    def done(self) -> bool:
        """Whether all epochs have been completed, or the training has stopped early."""
        return self.reached.epoch >= self.length.epochs or self._is_stale()

    def run(self) -> Progress:
        """Train to the end.

        Raises:
            Interrupted: by Ctrl-C, SIGTERM or SIGHUP; a snapshot has been written.
            NotFiniteError: the loss is NaN or infinite.
            Exception: any other error; if possible, a snapshot has been written.
        """
        if done := self._number():  # what is written before the next step has the rates of the last one
            self.schedule.apply(self.optimizer, done)
        self.reached = start = self.snapshots.begin(self.model, self.optimizer, self.reached)
        with worker_deaths(), StopRequest() as stop, self.live:
            try:
                while not self.done:
                    self._epoch(stop)
            except Interrupted as request:
                kept = self._keep(request.together)
                raise Interrupted(f"{request} in {self.reached}; {kept}") from None
            except Exception:
                if self.reached != start and distributed.is_main():
                    kept = self._keep()
                    self.log.warning("an error ends the run in %s; %s", self.reached, kept)
                raise
            finally:
                self.board.close()
        return self.reached

    def _epoch(self, stop: StopRequest) -> None:
        """Run the rest of the current epoch, validate, and enter the next one."""
        epoch, first = self.reached.epoch, self.reached.step
        steps = self.length.steps_in(epoch)
        half = len(self.batches) // 2 if self.settings.SubEpoch_val and epoch > 0 else None
        self._set_training_mode()
        self.batches.start(epoch, first, steps)
        self.sums = {}
        description = f"epoch {epoch + 1}/{self.length.epochs}"
        seconds = 0.0
        bar = progress(self.loader.batches(stop.check), description, total=steps, initial=first)
        self.pace.begin()
        for batch in bar:
            if self.reached.step == half:
                self._validate(epoch + 0.5, stop)
                self._set_training_mode()
                self.pace.begin()
            started = time.perf_counter()
            self._step(batch)
            if self._number() % self.settings.print_freq == 0 or self.reached.step in (half, steps):
                loss = self._look()
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            seconds += time.perf_counter() - started
            self._tell("steps")
            if stop.check_together(self.snapshots.due()):
                self._save_last()
                self.pace.begin()
        if self.sums:
            taken = steps - first
            means = ", ".join(f"{name} {value / taken:.4f}" for name, value in self.sums.items())
            self.log.info("%s: %s (%.3f s a step)", description, means, seconds / taken)
        if self._validates_after(epoch + 1):
            self._validate(epoch + 1, stop)
        self.reached = self.reached.after_epoch()
        if self.done or (epoch + 1) % self.settings.save_freq == 0:
            self._save_last()

    def _step(self, batch: EpisodeBatch | BaseBatch) -> None:
        """Take a step; nothing here waits for the device."""
        with self.safe_point.step():
            number = self._number() + 1
            self.schedule.apply(self.optimizer, number)
            losses = training_step(
                self.model,
                batch.to(self.device),
                self.optimizer,
                forward=self.forward,
                generator=self._seed(number),
                accumulate=self.settings.accumulate,
            )
            self.unseen.add(self.reached, batch.names, losses, self.safe_point.not_finite)
            self.reached = self.reached.after_step()

    def _look(self) -> float:
        """Look at the losses of the steps since the last look, and return that of the last one.

        This waits for the device, and so comes every ``print_freq`` steps, at the end of an epoch, and before
        a validation or a snapshot.

        Raises:
            NotFiniteError: one is NaN or infinite; the run is back at the step before.
        """
        seen = self.unseen.look()
        faults = (number for number, step in enumerate(seen) if step.not_finite)
        if (first := next(faults, None)) is not None:
            fault = seen[first]
            self.safe_point.restore(len(seen) - first)
            self.reached = fault.before
            self.schedule.apply(self.optimizer, self._number())
            raise NotFiniteError(fault.fault())
        self.safe_point.settle()
        if seen:
            self.pace.steps([step.total for step in seen])
            self._show(seen[-1].losses)
        for step in seen:
            self.sums = {name: self.sums.get(name, 0.0) + value for name, value in step.losses.items()}
        return seen[-1].total if seen else math.nan

    def _show(self, losses: Mapping[str, float]) -> None:
        """Write the losses and learning rates of the last step to TensorBoard, every ``print_freq`` steps."""
        number = self._number()
        if number % self.settings.print_freq == 0:
            rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups}
            self.board.scalars("loss", {**losses, "total": sum(losses.values())}, number)
            self.board.scalars("lr", rates, number)

    def _tell(self, phase: str) -> None:
        """Say in ``live.json`` how far the training is; epochs are numbered as in the log."""
        reached = self.reached
        self.live.show(
            work="training",
            phase=phase,
            epoch=reached.epoch + 1,
            epochs=self.length.epochs,
            step=reached.step,
            steps=len(self.batches),
            best_score=None if reached.best_score < 0 else reached.best_score,
            best_epoch=reached.best_epoch,
            **self.pace.recent(),
        )

    def _number(self) -> int:
        """Return the number of steps completed since the start of the first epoch."""
        return self.length.number(self.reached.epoch, self.reached.step)

    def _validate(self, epoch: float, stop: StopRequest) -> None:
        """Score the model after ``epoch`` epochs, where it can be, and keep it if it is the best so far."""
        if self.validate is None:
            return
        # A process that is stopped during the validation cannot communicate with the others.
        self.gathered = distributed.gather(self.model.memory.state())

        def check() -> None:
            stop.check()
            self._tell("validation")

        score, metrics = self.validate(epoch, check)
        number = self.length.number(epoch)
        self.board.scalars("validation", metrics, number)
        shown = ", ".join(f"{name} {100 * value:.2f}" for name, value in metrics.items())
        best = score > self.reached.best_score
        self.log.info("after epoch %g: %s%s", epoch, shown, " (best)" if best else "")
        if best:
            reached = replace(self.reached, best_score=float(score), best_epoch=float(epoch))
            if distributed.is_main():
                if not self.snapshots.begun:  # so that no best weights lie there without a state
                    self._write_state(self.gathered)
                self.snapshots.save_best(self.model, reached)
            self.reached = reached
        self.gathered = None

    def _validates_after(self, epoch: int) -> bool:
        """Return whether a validation follows this many epochs; the last epoch is always followed by one."""
        settings = self.settings
        validates = settings.evaluate and self.validate is not None
        return validates and (epoch % settings.val_freq == 0 or epoch == self.length.epochs)

    def _is_stale(self) -> bool:
        """Return whether this epoch was validated, and ``stop_interval`` epochs brought no new best score."""
        epoch = self.reached.epoch
        waited = epoch - self.reached.best_epoch
        return epoch > 0 and self._validates_after(epoch) and waited > self.settings.stop_interval

    def _save_last(self) -> None:
        """Write the state and the current weights; all processes must call this."""
        self._look()
        memories = distributed.gather(self.model.memory.state())
        if distributed.is_main():
            self._write_state(memories)

    def _write_state(self, memories: Memories) -> None:
        """Write the state and the current weights, and before them the curves up to here."""
        self.board.flush()
        self.snapshots.save_last(self.model, self.optimizer, self.reached, memories)

    def _keep(self, together: bool = False) -> str:
        """Save the last complete step, if possible, and return a message about it for the user.

        Args:
            together: whether all processes call this; otherwise no communication is possible.
        """
        distributed.take_time()
        try:
            try:
                self._look()
            except NotFiniteError as fault:
                self.log.warning("%s", fault)
            self.safe_point.restore()
            if together:
                self._save_last()
            elif distributed.is_main():
                self._write_state(self.gathered or memories_alone(self.model))
        except Exception as failure:  # it must not hide the error that ends the run
            stays = "an earlier one stays" if self.snapshots.begun else "there is none to go on from"
            return f"no snapshot is written: {first_line(failure)}; {stays}"
        return f"go on with --opts resume {self.snapshots.folder}"

    def _set_training_mode(self) -> None:
        self.model.train()
        if self.settings.fix_bn:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def _seed(self, number: int) -> torch.Generator:
        """Make the random draws of a step depend only on seed, step and process."""
        key = np.random.SeedSequence((self.reached.seed, number, distributed.rank()))
        seed = int(key.generate_state(1, np.uint32)[0])
        torch.manual_seed(seed)
        return torch.Generator(self.device).manual_seed(seed)
