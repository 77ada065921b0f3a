"""The data sets of stage 1: images with the labels of a fold's base classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fewseg.dataset.classes.split import ClassSplit
from fewseg.dataset.episodes.sampling import generator
from fewseg.dataset.labels import VOID
from fewseg.dataset.lists.area_index import AreaIndex
from fewseg.dataset.loading.batches import EpochOrder, Key
from fewseg.dataset.loading.store import ImageStore
from fewseg.dataset.reading.transform import Resize, TrainTransform, look_up, relabel
from fewseg.util.errors import DataError


class BaseBatch(NamedTuple):
    """A batch for the base learner.

    Attributes:
        image: normalised images, float [B,3,S,S].
        label: 0 background, j the j-th base class, 255 void; int64 [B,S,S].
        names: names of the images.
    """

    image: Tensor
    label: Tensor
    names: tuple[str, ...]

    def to(self, device: torch.device) -> BaseBatch:
        """Return the batch with its tensors on ``device``; the host does not wait for a copy to a GPU."""
        waits = device.type == "cpu"
        image, label = (part.to(device, non_blocking=not waits) for part in (self.image, self.label))
        return self._replace(image=image, label=label)

    def parts(self, count: int) -> list[BaseBatch]:
        """Return ``count`` equal parts of the images, without their names."""
        images, labels = self.image.chunk(count), self.label.chunk(count)
        return [BaseBatch(image, label, ()) for image, label in zip(images, labels, strict=True)]

    def labelled(self) -> Tensor:
        """Return the number of labelled pixels, on the device."""
        return (self.label != VOID).sum()


def without_novel(areas: AreaIndex, split: ClassSplit) -> tuple[int, ...]:
    """Return the positions of the images without any pixel of a class that training must not see.

    Raises:
        DataError: every image has such a pixel.
    """
    positions = np.flatnonzero(~areas.at_least(split.unseen).any(axis=1)).tolist()
    if not positions:
        raise DataError(
            "every training image holds a novel class of this fold; keep the images, the novel classes as "
            "background, by --opts novel_in_train background"
        )
    return tuple(positions)


class BaseDataset(Dataset[BaseBatch]):
    """Training images; ``dataset[epoch, index]`` is a pure function of the seed, the epoch and the index.

    Attributes:
        positions: positions of the images that are used, by default all; novel pixels become background.
    """

    def __init__(
        self,
        store: ImageStore,
        split: ClassSplit,
        transform: TrainTransform,
        *,
        seed: int,
        positions: tuple[int, ...] | None = None,
    ) -> None:
        self.store, self.split, self.transform, self.seed = store, split, transform, seed
        self.positions = tuple(range(len(store.source))) if positions is None else positions
        self._order = EpochOrder(len(self), seed)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, key: Key) -> BaseBatch:
        """Load one image as a batch of one."""
        return self.__getitems__([key])

    def __getitems__(self, keys: list[Key]) -> BaseBatch:
        """Load a batch, each image written directly into it.

        As published, the crop is drawn to keep the pixels of the first base class.
        """
        batch, names = _empty(len(keys), self.transform.size), []
        for row, (epoch, index) in enumerate(keys):
            position = self.positions[self._order.item(epoch, index)]
            names.append(self.store.source.names[position])
            image, mask = self.store.pair(position)
            label = relabel(mask, self.split.base_table)
            rng = generator("augmentation", self.seed, epoch, index)
            _, (label,) = self.transform(image, [label], rng, out=batch.image[row])
            batch.label[row] = torch.from_numpy(label)
        return batch._replace(names=tuple(names))


class BaseEvaluation(Dataset[BaseBatch]):
    """Every image of a list once, resized, with its base labels at the size of the network's input."""

    def __init__(self, store: ImageStore, split: ClassSplit, resize: Resize) -> None:
        self.store, self.split, self.resize = store, split, resize

    def __len__(self) -> int:
        return len(self.store.source)

    def __getitem__(self, position: int) -> BaseBatch:
        """Load one image as a batch of one."""
        return self.__getitems__([position])

    def __getitems__(self, positions: list[int]) -> BaseBatch:
        """Load a batch."""
        batch = _empty(len(positions), self.resize.size)
        for row, position in enumerate(positions):
            image, mask = self.store.pair(position)
            batch.image[row] = self.resize.image(image)
            batch.label[row] = look_up(self.resize.label(mask), self.split.base_table)
        return batch._replace(names=tuple(self.store.source.names[i] for i in positions))


def _empty(count: int, size: int) -> BaseBatch:
    return BaseBatch(
        torch.empty(count, 3, size, size), torch.empty(count, size, size, dtype=torch.int64), names=()
    )
