"""The training loop, the same for base learners and few-shot models.

A step's batch and its random draws follow from (seed, epoch, step) alone: a resumed run continues as if it
had never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from dataset.base import BaseBatch
from dataset.batches import EpochBatches
from dataset.fewshot import EpisodeBatch
from engine.board import Board
from engine.hooks import Check
from engine.interrupt import Interrupted, StopRequest
from engine.loader import Loader, worker_deaths
from engine.optimisation import PolySchedule
from engine.snapshot import Progress, Snapshots
from engine.step import NotFiniteError, training_step
from model.fewshot import FewShotModel
from util import distributed
from util.errors import UserError
from util.log import get_log
from util.progress import progress

Validate = Callable[[float, Check], tuple[float, Mapping[str, float]]]
"""Epochs done, a check that may stop it -> the score that selects snapshots, and all metrics."""


@dataclass(frozen=True)
class LoopSettings:
    """How long and how a loop runs; the names are the config's.

    Attributes:
        epochs: at most.
        stop_interval: epochs without a new best after which it ends.
        save_freq: epochs between snapshots.
        print_freq: steps between two lines on the board.
        half_epochs: validate in the middle of epochs too, from the second one on.
        evaluate: validate at all.
        val_freq: epochs between two validations.
        fix_bn: keep every BatchNorm in evaluation mode; None leaves it to the model.
        amp: run the network in bfloat16 where that is safe.
        compile: compile the network.
    """

    epochs: int
    stop_interval: int = 75
    save_freq: int = 10
    print_freq: int = 10
    half_epochs: bool = False
    evaluate: bool = True
    val_freq: int = 1
    fix_bn: bool | None = None
    amp: bool = False
    compile: bool = False

    def validates_after(self, epoch: int) -> bool:
        """Return whether a validation follows so many epochs; the last one always has it."""
        return self.evaluate and (epoch % self.val_freq == 0 or epoch == self.epochs)


class TrainingLoop:
    """Steps, validations and snapshots.

    Args:
        model: on ``device``.
        optimizer: of its parameters.
        schedule: of the learning rates.
        loader, batches: this process's share of the data.
        validate: scores the model.
        snapshots, board: where weights and curves go.
        reached: where to start from; kept up to date.
        settings: see there.
        device: of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: PolySchedule,
        loader: Loader,
        batches: EpochBatches,
        validate: Validate,
        snapshots: Snapshots,
        board: Board,
        reached: Progress,
        settings: LoopSettings,
        device: torch.device,
    ) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.loader, self.batches, self.validate = loader, batches, validate
        self.snapshots, self.reached, self.settings, self.device = snapshots, reached, settings, device
        self.forward = _wrapped(model, settings, device)
        self.board = board
        self.log = get_log("train")

    def run(self) -> Progress:
        """Train to the end.

        Raises:
            Interrupted: by Ctrl-C or SIGTERM; a snapshot has been written.
            NotFiniteError: the loss is NaN or infinite.
        """
        with worker_deaths(), StopRequest() as stop:
            try:
                while self.reached.epoch < self.settings.epochs and not self._is_stale():
                    self._epoch(stop)
            except Interrupted as request:
                self._save_last()
                at = f"epoch {self.reached.epoch + 1}, step {self.reached.step}"
                folder = self.snapshots.folder
                raise Interrupted(f"{request} in {at}; go on with --opts resume {folder}") from None
            finally:
                self.board.close()
        return self.reached

    def _epoch(self, stop: StopRequest) -> None:
        """Run the rest of the current epoch, validate, and enter the next one."""
        reached, steps = self.reached, len(self.batches)
        half = steps // 2 if self.settings.half_epochs and reached.epoch > 0 else None
        self._set_training_mode()
        self.batches.start(reached.epoch, reached.step)
        sums: dict[str, float] = {}
        description = f"epoch {reached.epoch + 1}/{self.settings.epochs}"
        first, seconds = reached.step, 0.0
        bar = progress(self.loader.batches(stop.check), description, total=steps, initial=first)
        for batch in bar:
            if reached.step == half:
                self._validate(reached.epoch + 0.5, stop)
                self._set_training_mode()
            started = time.perf_counter()
            losses = self._step(batch)
            seconds += time.perf_counter() - started
            sums = {name: sums.get(name, 0.0) + value for name, value in losses.items()}
            bar.set_postfix(loss=f"{sum(losses.values()):.3f}", refresh=False)
            reached.step += 1
            stop.check_together()
        if sums:
            taken = steps - first
            means = ", ".join(f"{name} {value / taken:.4f}" for name, value in sums.items())
            self.log.info("%s: %s (%.3f s a step)", description, means, seconds / taken)
        if self.settings.validates_after(reached.epoch + 1):
            self._validate(reached.epoch + 1, stop)
        reached.epoch, reached.step = reached.epoch + 1, 0
        if (
            reached.epoch % self.settings.save_freq == 0
            or reached.epoch == self.settings.epochs
            or self._is_stale()
        ):
            self._save_last()

    def _step(self, batch: EpisodeBatch | BaseBatch) -> dict[str, float]:
        reached = self.reached
        number = reached.epoch * len(self.batches) + reached.step + 1
        rates = self.schedule.apply(self.optimizer, number)
        generator = self._seed(number)
        try:
            losses = training_step(
                self.model,
                _on_device(batch, self.device),
                self.optimizer,
                forward=self.forward,
                generator=generator,
                precision=self._precision(),
            )
        except NotFiniteError as failure:
            at = f"epoch {reached.epoch + 1}, step {reached.step + 1}"
            raise NotFiniteError(f"{at}: {failure}; the batch: {'; '.join(batch.names)}") from None
        if number % self.settings.print_freq == 0:
            names = [group["name"] for group in self.optimizer.param_groups]
            self.board.scalars("loss", {**losses, "total": sum(losses.values())}, number)
            self.board.scalars("lr", dict(zip(names, rates, strict=True)), number)
        return losses

    def _validate(self, epoch: float, stop: StopRequest) -> None:
        """Score the model after ``epoch`` epochs and keep it if it is the best so far."""
        score, metrics = self.validate(epoch, stop.check)
        number = round(epoch * len(self.batches))
        self.board.scalars("validation", metrics, number)
        shown = ", ".join(f"{name} {100 * value:.2f}" for name, value in metrics.items())
        best = score > self.reached.best_score
        self.log.info("after epoch %g: %s%s", epoch, shown, " (best)" if best else "")
        if best:
            self.reached.best_score, self.reached.best_epoch = score, epoch
            if distributed.is_main():
                self.snapshots.save_best(self.model, self.reached)

    def _is_stale(self) -> bool:
        """Return whether there was a validation after this epoch, and it has waited too long for a best."""
        epoch = self.reached.epoch
        waited = epoch - self.reached.best_epoch
        return epoch > 0 and self.settings.validates_after(epoch) and waited > self.settings.stop_interval

    def _save_last(self) -> None:
        if distributed.is_main():
            self.snapshots.save_last(self.model, self.optimizer, self.reached)

    def _set_training_mode(self) -> None:
        self.model.train()
        if self.settings.fix_bn:
            for module in self.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def _seed(self, number: int) -> torch.Generator:
        """Make the random draws of a step depend on seed, step and process alone."""
        key = np.random.SeedSequence((self.reached.seed, number, distributed.rank()))
        seed = int(key.generate_state(1, np.uint32)[0])
        torch.manual_seed(seed)
        return torch.Generator(self.device).manual_seed(seed)

    def _precision(self) -> AbstractContextManager[Any]:
        if not self.settings.amp:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """Let BatchNorms that learn see the batch of all GPUs, where there are several."""
    by_process = isinstance(model, FewShotModel) and model.meta.batch_dependent  # its batch is an episode's
    if distributed.world_size() > 1 and device.type == "cuda" and not by_process:
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def _wrapped(model: nn.Module, settings: LoopSettings, device: torch.device) -> nn.Module:
    """Return the model as its steps run it: compiled, distributed, or as it is."""
    forward = torch.compile(model) if settings.compile else model
    if distributed.world_size() > 1 and getattr(model, "turns", ()):
        raise UserError(
            "this method learns in turns, which is for a single process; start it without torchrun"
        )
    if distributed.world_size() > 1:
        forward = nn.parallel.DistributedDataParallel(forward)
    return forward


def _on_device(batch: EpisodeBatch | BaseBatch, device: torch.device) -> Any:
    """Return what the model is trained on."""
    if isinstance(batch, EpisodeBatch):
        return batch.episode.to(device)
    return batch._replace(image=batch.image.to(device), label=batch.label.to(device))
