"""Episodes as tensors: the training set of stage 2, and the images of a test run one at a time."""

from __future__ import annotations

from dataclasses import fields
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dataset.batches import Key
from dataset.episodes import EpisodeSpec, train_episode, train_order
from dataset.lists import EpisodeLists
from dataset.sampling import generator
from dataset.split import VOID, ClassSplit
from dataset.store import ImageStore
from dataset.transform import Resize, TrainTransform, class_table, look_up
from dataset.weak import annotate
from model.interface import Episode


class EpisodeBatch(NamedTuple):
    """A batch and where it came from.

    Attributes:
        episode: the tensors.
        specs: the names of its images, one spec per query.
    """

    episode: Episode
    specs: tuple[EpisodeSpec, ...]

    @property
    def names(self) -> list[str]:
        """One line per query that names its images, for messages."""
        return [
            f"{spec.query} <- {', '.join(name for way in spec.supports for name in way)}"
            for spec in self.specs
        ]


class EpisodeDataset(Dataset):
    """Training episodes; ``dataset[epoch, index]`` is a pure function of the seed, the epoch and the index.

    Attributes:
        lists: what episodes are drawn from.
        split: classes of the fold.
        transform: the augmentation; query and supports draw from it one after the other.
        shot, ways: supports per class, classes per episode.
        seed: of every draw.
        annotation: how supports are annotated.
    """

    def __init__(
        self,
        lists: EpisodeLists,
        split: ClassSplit,
        transform: TrainTransform,
        *,
        shot: int,
        ways: int = 1,
        seed: int,
        annotation: str = "mask",
        support_void: str = "keep",
        cache_bytes: int = 0,
    ) -> None:
        self.lists, self.split, self.transform = lists, split, transform
        self.shot, self.ways, self.seed = shot, ways, seed
        self.annotation, self.support_void = annotation, support_void
        self.store = ImageStore(lists.source, cache_bytes)
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return len(self.lists.queries)

    def spec(self, key: Key) -> EpisodeSpec:
        """Return the names of an episode's images without reading them."""
        epoch, index = key
        if self._order[0] != epoch:
            self._order = (epoch, train_order(len(self), self.seed, epoch))
        number = self._order[1][index]
        return train_episode(self.lists, self.shot, self.seed, epoch, index, ways=self.ways, number=number)

    def __getitem__(self, key: Key) -> EpisodeBatch:
        """Return one episode as a batch of one."""
        spec = self.spec(key)
        rng = generator("augmentation", self.seed, *key)
        image, mask = self.store.named(spec.query)
        query, (mask,) = self.transform(image, [mask], rng, keep=spec.class_ids[0])
        supports, support_masks = [], []
        for class_id, names in zip(spec.class_ids, spec.supports, strict=True):
            for name in names:
                image, support_mask = self.store.named(name)
                support_mask = support_label(support_mask, class_id, self.annotation, self.support_void)
                image, (support_mask,) = self.transform(image, [support_mask], rng)
                supports.append(image)
                support_masks.append(torch.from_numpy(support_mask))
        episode = Episode(
            query=query[None],
            support=torch.stack(supports).unflatten(0, (self.ways, self.shot))[None],
            support_mask=torch.stack(support_masks).long().unflatten(0, (self.ways, self.shot))[None],
            class_id=torch.tensor([spec.class_ids]),
            class_index=torch.tensor([[self.split.base_index[c] for c in spec.class_ids]]),
            query_mask=look_up(mask, class_table(spec.class_ids))[None],
            base_label=look_up(mask, self.split.base_table)[None],
        )
        return EpisodeBatch(episode, (spec,))


def collate(batches: list[EpisodeBatch]) -> EpisodeBatch:
    """Join episodes of one form along the batch axis."""
    episodes = [batch.episode for batch in batches]
    joined = {}
    for field in fields(Episode):
        parts = [getattr(episode, field.name) for episode in episodes]
        joined[field.name] = None if parts[0] is None else torch.cat(parts)
    return EpisodeBatch(Episode(**joined), tuple(spec for batch in batches for spec in batch.specs))


def support_label(
    mask: np.ndarray, class_id: int, annotation: str = "mask", void: str = "keep"
) -> np.ndarray:
    """Turn a mask of class ids into a support's: 1 the class, 255 void, 0 all else; uint8 [H,W].

    Args:
        void: ``keep`` void pixels, or make them ``background``.
    """
    label = annotate(class_table([class_id])[mask], annotation)
    if void == "background":
        label[label == VOID] = 0
    return label


class EvaluationImages:
    """The images of a test run, each read on its own: what is encoded once and decoded in many episodes.

    Attributes:
        resize: how an image reaches the network.
        label_size: ``input`` gives labels at the network's size, all else at the original size.
        annotation: how supports are annotated.
    """

    def __init__(
        self,
        store: ImageStore,
        resize: Resize,
        *,
        label_size: str = "square",
        annotation: str = "mask",
        support_void: str = "keep",
    ) -> None:
        self.store, self.resize, self.label_size = store, resize, label_size
        self.annotation, self.support_void = annotation, support_void

    def load_query(self, name: str) -> tuple[Tensor, np.ndarray, Tensor]:
        """Read a query.

        Returns:
            The normalised image [3,S,S]; the label of dataset ids, uint8 [H,W], original size or S x S as
            ``label_size`` says; where the image holds padding, bool [S,S].
        """
        image, mask = self.store.named(name)
        label = self.resize.label(mask) if self.label_size == "input" else mask
        return self.resize.image(image), label, self.resize.padding(*mask.shape)

    def load_support(self, name: str, class_id: int) -> tuple[Tensor, Tensor]:
        """Read a support: the normalised image [3,S,S] and its mask of 0, 1 and 255, int64 [S,S]."""
        image, mask = self.store.named(name)
        label = support_label(mask, class_id, self.annotation, self.support_void)
        return self.resize.image(image), torch.from_numpy(self.resize.label(label)).long()
