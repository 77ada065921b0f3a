"""A training loop of milliseconds: a linear network that validates by chance."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from fewseg.dataset.loading.base_classes import BaseBatch
from fewseg.dataset.loading.batches import EpochBatches
from fewseg.engine.training.length import Length
from fewseg.engine.training.loop import TrainingLoop
from fewseg.engine.training.optimisation import PolySchedule, create_optimizer
from fewseg.engine.training.saving import Snapshots
from fewseg.engine.training.snapshot import STATE, Progress, Snapshot
from fewseg.engine.training.tensorboard import TensorBoardWriter
from fewseg.model.contract import BaseLearner
from fewseg.util.config.schema import Train

CPU = torch.device("cpu")
IMAGES, BATCH = 24, 4


class Linear(BaseLearner):
    """Has what a step can change: weights, and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.norm = nn.BatchNorm1d(3)
        self.linear = nn.Linear(3, 2)
        self.linear.weight.data = torch.randn(2, 3, generator=generator)
        self.linear.bias.data.zero_()

    def forward(self, image: Tensor) -> Tensor:
        return self.linear(self.norm(image))

    def losses(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        return {"main": nn.functional.cross_entropy(logits, label)}


class Loader:
    """Draws a batch from its keys."""

    def __init__(self, batches: EpochBatches) -> None:
        self._batches = batches

    def batches(self, check):
        for keys in self._batches:
            check()
            generator = torch.Generator().manual_seed(sum(epoch * 1000 + index for epoch, index in keys))
            image = torch.randn(BATCH, 3, generator=generator)
            yield BaseBatch(image, (image.sum(1) > 0).long(), ["an image"])


def small_loop(
    folder: Path,
    epochs: int = 6,
    save_freq: int = 2,
    minutes: float | None = None,
    max_steps: int | None = None,
    state: Path | None = None,
) -> TrainingLoop:
    """Return a loop that goes on from ``state``, or from the snapshot in ``folder``, or starts anew."""
    model = Linear()
    optimizer = create_optimizer({"all": list(model.parameters())}, "adamw", lr=0.1)
    batches = EpochBatches(IMAGES, BATCH)
    earlier = Snapshot.read(state or folder) if state or (folder / STATE).is_file() else None
    if earlier:
        earlier.restore(model, optimizer)

    settings = Train(epochs=epochs, max_steps=max_steps, save_freq=save_freq)
    schedule = PolySchedule(0.1, Length.of(settings, len(batches)).steps)

    def validate(epoch, check):
        check()
        scores = (0.1, 0.4, 0.2, 0.5, 0.7, 0.3)  # the best is sometimes newer than the state, sometimes older
        return scores[int(epoch - 1)], {"mIoU": 0.0}

    return TrainingLoop(
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        loader=Loader(batches),
        batches=batches,
        validate=validate,
        snapshots=Snapshots(folder, {"arch": "linear"}, {"epochs": epochs}, minutes, earlier),
        board=TensorBoardWriter(folder / "board"),
        reached=earlier.progress if earlier else Progress(seed=3),
        settings=settings,
    )
