"""What a network said about its training samples when it last saw them (CANet's history masks)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from fewseg.model.contract import TrainingMemory
from fewseg.model.layer.resize import resize

Sample = tuple[int, int]
"""Number of a query image, class that it was asked for."""


class PredictionMemory(TrainingMemory):
    """The foreground probabilities of the last prediction of every sample, in half precision."""

    def __init__(self) -> None:
        self.known: dict[Sample, Tensor] = {}
        self._before: dict[Sample, Tensor | None] | None = None

    def __len__(self) -> int:
        return len(self.known)

    def recall(self, sample: Sample, grid: tuple[int, ...]) -> Tensor:
        """Return the probabilities of background and foreground [2,h,w]; zero if it was never seen."""
        if sample not in self.known:
            return torch.zeros(2, *grid)
        foreground = resize(self.known[sample].float()[None, None], grid)[0]
        return torch.cat([1 - foreground, foreground])

    def remember(self, samples: list[Sample], logits: Tensor) -> None:
        """Keep what ``logits`` [B,2,h,w] say about as many samples."""
        if self._before is not None:
            for sample in samples:
                self._before.setdefault(sample, self.known.get(sample))
        foreground = logits.detach().softmax(1)[:, 1].half().cpu()
        self.known |= dict(zip(samples, foreground.clone(), strict=True))

    def watch(self) -> Callable[[], None]:
        """Return a call that takes back what is kept from now on."""
        before: dict[Sample, Tensor | None] = {}
        self._before = before

        def take_back() -> None:
            for sample, known in before.items():
                if known is None:
                    self.known.pop(sample, None)
                else:
                    self.known[sample] = known

        return take_back

    def state(self) -> dict[str, Tensor]:
        """Return what is known as tensors by name, for a snapshot."""
        return {f"{number}/{class_id}": map_ for (number, class_id), map_ in self.known.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state`` gave."""
        self.known = {_sample(name): map_ for name, map_ in state.items()}


def _sample(name: str) -> Sample:
    number, _, class_id = name.partition("/")
    return int(number), int(class_id)
