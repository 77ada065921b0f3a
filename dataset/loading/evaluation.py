"""The episodes of a test or validation; their images are read one by one, so that each is encoded once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.episodes.manifest import Manifest
from fewseg.dataset.episodes.sampling import EpisodeSpec
from fewseg.dataset.loading.auxiliary import ClassSets, Names
from fewseg.dataset.loading.few_shot import support_label
from fewseg.dataset.loading.store import ImageStore
from fewseg.dataset.reading.transform import class_table, relabel
from fewseg.dataset.weak.annotations import BY_OBJECT
from fewseg.model.contract import Episode

Support = tuple[str, int | None]
"""Name of an image and the class that its mask shows; None for an auxiliary image, which has no mask."""


ImageKey = str | Support
"""An image of a test: the name of a query, or a support or auxiliary image."""


class LoadedImage(NamedTuple):
    """An image as it is read for the network.

    Attributes:
        image: [3,H,W], normalised by ``transform.normalised`` if it is uint8.
        mask: of a support, 0, 1, 254 and 255, uint8 [H,W]; of a query, the label of dataset ids that
            predictions are compared with (see ``Fold.scored_label``); None for an auxiliary image.
    """

    image: Tensor
    mask: Tensor | None = None


class PlannedEpisode(NamedTuple):
    """An episode by the names of its images.

    Attributes:
        manifest_index: position of its manifest among all manifests.
        episode_index: position of the episode in that manifest.
        spec: names of its query and supports.
        auxiliary_names: names of its auxiliary images, way by way.
    """

    manifest_index: int
    episode_index: int
    spec: EpisodeSpec
    auxiliary_names: Names = ()

    @property
    def supports(self) -> list[tuple[str, int]]:
        """The supports and their classes, way by way."""
        ways = zip(self.spec.class_ids, self.spec.supports, strict=True)
        return [(name, class_id) for class_id, names in ways for name in names]

    @property
    def auxiliary(self) -> list[Support]:
        """The auxiliary images, way by way."""
        return [(name, None) for names in self.auxiliary_names for name in names]


@dataclass(frozen=True)
class EpisodeSet:
    """Episodes of one fold, drawn before the evaluation begins; it also reads their images.

    Attributes:
        fold: the fold, with its test images, classes and protocol.
        manifests: the episodes, one manifest per seed.
        annotation, annotation_seed: how supports are annotated.
        auxiliary: source of the auxiliary images, or None.
    """

    fold: Fold
    manifests: Sequence[Manifest]
    annotation: str = "mask"
    annotation_seed: int = 0
    auxiliary: ClassSets | None = None

    @cached_property
    def store(self) -> ImageStore:
        """The test images with their masks, at their original size; labels are checked when they are read."""
        return ImageStore(self.fold.val_images, classes=len(self.fold.classes.names) - 1)

    def __iter__(self) -> Iterator[PlannedEpisode]:
        """Yield all episodes, manifest by manifest."""
        sets = self.auxiliary
        for manifest_index, manifest in enumerate(self.manifests):
            for index, spec in enumerate(manifest):
                names = () if sets is None else sets.draw(spec, "test", manifest.seed, index)
                yield PlannedEpisode(manifest_index, index, spec, names)

    def load(self, planned: PlannedEpisode, *, with_truth: bool = False) -> tuple[Episode, np.ndarray]:
        """Read the images of an episode.

        Args:
            planned: the episode.
            with_truth: whether to return the query's true mask of 0..N and 255 too, for an oracle only.

        Returns:
            A batch of one episode, and the query's label (see ``load_query``).
        """
        spec, ways, resize = planned.spec, len(planned.spec.class_ids), self.fold.resize
        image, mask = self.store.named(spec.query)
        truth = torch.from_numpy(resize.label(relabel(mask, class_table(spec.class_ids)))).long()
        supports, masks = zip(*(self.load_support(*support) for support in planned.supports), strict=True)
        further = [self.load_auxiliary(name) for name, _ in planned.auxiliary]
        episode = Episode(
            query=resize.image(image)[None],
            support=torch.stack(supports).unflatten(0, (1, ways, -1)),
            support_mask=torch.stack(masks).unflatten(0, (1, ways, -1)),
            class_id=torch.tensor([spec.class_ids]),
            query_mask=truth[None] if with_truth else None,
            query_padding=resize.padding(*mask.shape)[None],
            auxiliary=torch.stack(further).unflatten(0, (1, ways, -1)) if further else None,
        )
        return episode, self.fold.scored_label(mask)

    def load_query(self, name: str) -> tuple[Tensor, np.ndarray]:
        """Read a query.

        Returns:
            The normalised image [3,S,S], and the label of dataset ids that predictions are compared with (see
            ``Fold.scored_label``).
        """
        image, mask = self.store.named(name)
        return self.fold.resize.image(image), self.fold.scored_label(mask)

    def load_support(self, name: str, class_id: int) -> tuple[Tensor, Tensor]:
        """Read a support: the normalised image [3,S,S] and its mask of 0, 1, 254 and 255, int64 [S,S]."""
        image, label = self.annotated(name, class_id)
        return self.fold.resize.image(image), torch.from_numpy(self.fold.resize.label(label)).long()

    def annotated(self, name: str, class_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Read a support at original size: the image uint8 [H,W,3] and the annotated mask uint8 [H,W]."""
        image, mask = self.store.named(name)
        void = self.fold.protocol.support_void
        instances = self.store.objects(name) if self.annotation == BY_OBJECT else None
        label = support_label(
            mask, class_id, self.annotation, void, seed=self.annotation_seed, name=name, instances=instances
        )
        return image, label

    def load_auxiliary(self, name: str) -> Tensor:
        """Read an auxiliary image [3,S,S]; its mask is not read."""
        return self.fold.resize.image(self.store.image(name))


class PlannedImages(Dataset[LoadedImage]):
    """The images of a test by the position of their first use.

    Args:
        episodes: reads the images.
        order: the images.
        compact: read images as bytes where these hold the resized pixels, for the way to a GPU; see
            ``Resize.compact``.
    """

    def __init__(self, episodes: EpisodeSet, order: Sequence[ImageKey], compact: bool = False) -> None:
        self._episodes, self._order = episodes, order
        self._prepare = episodes.fold.resize.compact if compact else episodes.fold.resize.image

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, position: int) -> LoadedImage:
        return self.load(self._order[position])

    def load(self, key: ImageKey) -> LoadedImage:
        """Read an image."""
        episodes = self._episodes
        if isinstance(key, str):
            image, mask = episodes.store.named(key)
            label = episodes.fold.scored_label(mask)
            return LoadedImage(self._prepare(image), torch.from_numpy(label))
        name, class_id = key
        if class_id is None:
            return LoadedImage(self._prepare(episodes.store.image(name)))
        image, mask = episodes.annotated(name, class_id)
        return LoadedImage(self._prepare(image), torch.from_numpy(episodes.fold.resize.label(mask)))
