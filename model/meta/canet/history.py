"""The last predictions of a network for its training samples (CANet's history masks)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fewseg.model import waiting
from fewseg.model.contract import TrainingMemory
from fewseg.model.layer.resize import resize

CPU = torch.device("cpu")

Sample = tuple[int, int]
"""Index of a query image, and id of the class that was segmented in it."""


class PredictionMemory(TrainingMemory):
    """The foreground probabilities of the last prediction of every sample, in half precision.

    They stay on the device on which they were computed, so that no step waits for their copy. A prediction at
    473 pixels takes 7 KB.
    """

    def __init__(self) -> None:
        self.predictions: dict[Sample, Tensor] = {}
        self._before: dict[Sample, Tensor | None] | None = None

    def __len__(self) -> int:
        return len(self.predictions)

    def recall(self, sample: Sample, grid: tuple[int, ...], device: torch.device = CPU) -> Tensor:
        """Return the probabilities of background and foreground [2,h,w]; zero for an unknown sample."""
        if sample not in self.predictions:
            return torch.zeros(2, *grid, device=device)
        prediction = waiting.sent(self.predictions[sample], device)
        foreground = resize(prediction.float()[None, None], grid)[0]
        return torch.cat([1 - foreground, foreground])

    def remember(self, samples: list[Sample], logits: Tensor) -> None:
        """Store the foreground probabilities of the logits [B,2,h,w] of B samples."""
        if self._before is not None:
            for sample in samples:
                self._before.setdefault(sample, self.predictions.get(sample))
        foreground = logits.detach().softmax(1)[:, 1].half()
        self.predictions |= dict(zip(samples, foreground.clone(), strict=True))

    def watch(self) -> Callable[[], None]:
        """Return a function that undoes all changes from now on."""
        before: dict[Sample, Tensor | None] = {}
        self._before = before

        def undo() -> None:
            for sample, prediction in before.items():
                if prediction is None:
                    self.predictions.pop(sample, None)
                else:
                    self.predictions[sample] = prediction

        return undo

    def state(self) -> dict[str, Tensor]:
        """Return the predictions as tensors by name, for a snapshot."""
        return {f"{index}/{class_id}": map_.cpu() for (index, class_id), map_ in self.predictions.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Replace the predictions by the result of ``state``."""
        self.predictions = {_sample(name): map_ for name, map_ in state.items()}


def _sample(name: str) -> Sample:
    index, _, class_id = name.partition("/")
    return int(index), int(class_id)
