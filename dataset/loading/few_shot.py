"""The training set of stage 2: training episodes as tensors."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fewseg.dataset.classes.split import ClassSplit
from fewseg.dataset.episodes.manifest import train_episode
from fewseg.dataset.episodes.sampling import EpisodeSpec, generator
from fewseg.dataset.labels import VOID
from fewseg.dataset.lists.image_lists import EpisodeLists
from fewseg.dataset.loading.auxiliary import AuxiliarySource
from fewseg.dataset.loading.batches import EpochOrder, Key
from fewseg.dataset.loading.store import ImageStore
from fewseg.dataset.reading.transform import PlainTransform, TrainTransform, class_table, relabel
from fewseg.dataset.weak.annotations import BY_OBJECT, annotate
from fewseg.model.contract import UNLABELLED, Episode


class EpisodeBatch(NamedTuple):
    """A batch of episodes and the names of its images.

    Attributes:
        episode: the tensors.
        specs: the names of the images, one spec per query.
    """

    episode: Episode
    specs: tuple[EpisodeSpec, ...]

    def to(self, device: torch.device) -> Episode:
        """Return the tensors, without the names, on ``device``."""
        return self.episode.to(device)

    @property
    def names(self) -> list[str]:
        """One line for each query that names its images, for messages."""
        return [
            f"{spec.query} <- {', '.join(name for way in spec.supports for name in way)}"
            for spec in self.specs
        ]


class EpisodeDataset(Dataset[EpisodeBatch]):
    """Training episodes; ``dataset[epoch, index]`` is a pure function of the seed, the epoch and the index.

    Attributes:
        lists: the images and classes that episodes are drawn from.
        split: classes of the fold.
        transform: the augmentation, drawn for the query first and then for each support.
        shot, ways: supports per class, classes per episode.
        seed: seed of all random draws.
        annotation, annotation_seed: how supports are annotated.
        auxiliary: source of the auxiliary images, or None.
    """

    def __init__(
        self,
        lists: EpisodeLists,
        split: ClassSplit,
        transform: TrainTransform | PlainTransform,
        *,
        shot: int,
        ways: int = 1,
        seed: int,
        annotation: str = "mask",
        annotation_seed: int = 0,
        support_void: str = "keep",
        cache_bytes: int = 0,
        auxiliary: AuxiliarySource | None = None,
    ) -> None:
        self.auxiliary = auxiliary
        self.lists, self.split, self.transform = lists, split, transform
        self.shot, self.ways, self.seed = shot, ways, seed
        self.annotation, self.annotation_seed, self.support_void = annotation, annotation_seed, support_void
        self.store = ImageStore(lists.source, cache_bytes)
        self._order = EpochOrder(len(self), seed)

    def __len__(self) -> int:
        return len(self.lists.queries)

    def spec(self, key: Key) -> EpisodeSpec:
        """Return the names of an episode's images without reading them."""
        item = self._order.item(*key)
        return train_episode(self.lists, self.shot, self.seed, *key, ways=self.ways, query_index=item)

    def __getitem__(self, key: Key) -> EpisodeBatch:
        """Load one episode as a batch of one."""
        return self.__getitems__([key])

    def __getitems__(self, keys: list[Key]) -> EpisodeBatch:
        """Load a batch of episodes, each written directly into the batch; stacking later is expensive."""
        size, count, ways = self.transform.size, len(keys), (self.ways, self.shot)
        specs = tuple(self.spec(key) for key in keys)
        index = [[self.split.base_index[c] for c in spec.class_ids] for spec in specs]
        episode = Episode(
            query=torch.empty(count, 3, size, size),
            support=torch.empty(count, *ways, 3, size, size),
            support_mask=torch.empty(count, *ways, size, size, dtype=torch.int64),
            class_id=torch.tensor([spec.class_ids for spec in specs]),
            class_index=torch.tensor(index),
            query_mask=torch.empty(count, size, size, dtype=torch.int64),
            base_label=torch.empty(count, size, size, dtype=torch.int64),
            query_number=torch.tensor([self._order.item(*key) for key in keys]),
            **self._auxiliary_space(count),
        )
        for row, (key, spec) in enumerate(zip(keys, specs, strict=True)):
            rng = generator("augmentation", self.seed, *key)
            self._load_query(spec, rng, episode, row)
            for way, names in enumerate(spec.supports):
                for shot, name in enumerate(names):
                    self._load_support(spec, name, rng, episode, (row, way, shot))
            if self.auxiliary is not None:
                self._load_auxiliary(self.auxiliary, key, spec, episode, row)
        return EpisodeBatch(episode, specs)

    def _load_query(self, spec: EpisodeSpec, rng: random.Random, episode: Episode, row: int) -> None:
        assert episode.query_mask is not None and episode.base_label is not None  # made for training
        image, mask = self.store.named(spec.query)
        _, (mask,) = self.transform(image, [mask], rng, keep=spec.class_ids[0], out=episode.query[row])
        episode.query_mask[row] = torch.from_numpy(relabel(mask, class_table(spec.class_ids)))
        if self.split.fits_base_labels:
            episode.base_label[row] = torch.from_numpy(relabel(mask, self.split.base_table))
        else:
            episode.base_label[row] = VOID

    def _load_support(
        self, spec: EpisodeSpec, name: str, rng: random.Random, episode: Episode, place: tuple[int, int, int]
    ) -> None:
        image, mask = self.store.named(name)
        class_id = spec.class_ids[place[1]]
        label = support_label(
            mask,
            class_id,
            self.annotation,
            self.support_void,
            spec.class_ids,
            seed=self.annotation_seed,
            name=name,
            instances=self.store.objects(name) if self.annotation == BY_OBJECT else None,
        )
        _, (label,) = self.transform(image, [label], rng, out=episode.support[place])
        episode.support_mask[place] = torch.from_numpy(label)

    def _auxiliary_space(self, count: int) -> dict[str, Tensor]:
        """Return tensors for the auxiliary images of ``count`` episodes."""
        if self.auxiliary is None:
            return {}
        size, axes = self.transform.size, (count, self.ways, self.auxiliary.count)
        space = {"auxiliary": torch.empty(*axes, 3, size, size)}
        if self.auxiliary.labelled:
            space["auxiliary_label"] = torch.empty(*axes, size, size, dtype=torch.int64)
        return space

    def _load_auxiliary(
        self, source: AuxiliarySource, key: Key, spec: EpisodeSpec, episode: Episode, row: int
    ) -> None:
        images, labels = episode.auxiliary, episode.auxiliary_label
        assert images is not None  # _auxiliary_space
        rng = generator("auxiliary augmentation", self.seed, *key)
        for way, names in enumerate(source.draw(spec, "train", self.seed, *key)):
            for index, name in enumerate(names):
                image, label = source.read(self.store, name)
                place = (row, way, index)
                mask = np.zeros(image.shape[:2], np.uint8) if label is None else label
                # No pixel has label 254, so the crop is not bound to any class.
                out = images[place]
                _, (mask,) = self.transform(image, [mask], rng, keep=UNLABELLED, out=out)
                if labels is not None:
                    labels[place] = torch.from_numpy(mask)


def support_label(
    mask: np.ndarray,
    class_id: int,
    annotation: str = "mask",
    void: str = "keep",
    others: Sequence[int] = (),
    *,
    seed: int = 0,
    name: str = "support",
    instances: np.ndarray | None = None,
) -> np.ndarray:
    """Turn a mask of class ids into a support mask: 1 the class, 255 void, 0 all else; uint8 [H,W].

    Args:
        void: ``keep`` void pixels, or make them ``background``.
        others: classes of the episode's other ways; their pixels become 254, not background of this way.
        seed, name, instances: see ``annotate``.
    """
    binary = relabel(mask, class_table([class_id]))
    label = annotate(binary, annotation, seed=seed, name=name, instances=instances)
    if others := [c for c in others if c != class_id]:
        label[np.isin(mask, others) & (label == 0)] = UNLABELLED
    if void == "background":
        label[label == VOID] = 0
    return label
