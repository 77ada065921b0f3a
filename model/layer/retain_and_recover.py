"""RARE's three strategies, around the merge of any method that a support prototype guides.

C. Lang et al., "Retain and Recover: Delving into Information Loss for Few-Shot Segmentation", IEEE TIP 2023.
Pooling an object to one vector loses its layout, downsampling its mask loses part of it, and averaging K
supports blurs it. The paper does not restrict the three remedies to one baseline, and each works alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from fewseg.model.encoding import Encoding
from fewseg.model.episode import Episode, Prediction
from fewseg.model.layer.error_prone import EPSILON, error_prone_loss, lost_foreground, merge_regions
from fewseg.model.layer.loss import binary_tasks
from fewseg.model.layer.pooling import masked_average_pool, tile
from fewseg.model.layer.profile_transform import ProfileTransform
from fewseg.model.layer.resize import resize_like
from fewseg.model.options import Weight
from fewseg.model.records import Map

OBJECT, ERROR_PRONE = "", "error_prone_"
"""Prefixes of the entries of encodings and guidance that describe a region of the support."""

Average = Callable[[Tensor], Tensor]
"""Averages values [B,K,...] over the K supports -> [B,...]."""


ACTIVATION_MAPS = (
    Map("activation", "cosine with the prototype"),
    Map("error_prone_activation", "cosine with the error-prone prototype"),
)
"""How figures show the activation maps."""


@dataclass(frozen=True)
class RetainAndRecoverOptions:
    """Options of RARE's strategies.

    Attributes:
        unidirectional_pooling: whether a prototype is spread over the query by row and column profiles of
            query and support; otherwise it is repeated at every position.
        error_prone_region: whether the foreground that is lost when a mask is downsampled has a branch and a
            loss of its own; with it come activation maps, the cosines of the query with the prototypes of
            this region and of the whole object.
        adaptive_integration: whether every query position takes, of K supports' prototypes, the one that is
            most similar to it; otherwise their average.
        profile_softmax: over what the softmax of unidirectional pooling extends: ``all`` pairs of a position
            of the query and one of the support, as published, or the positions of the ``support`` for every
            one of the query. With ``all``, a spread prototype is smaller by about the number of positions of
            the feature grid, and so are its gradients.
        error_prone_weight: weight of the loss on error-prone pixels. It is not published; BAM's 1 is assumed.
    """

    unidirectional_pooling: bool = False
    error_prone_region: bool = False
    adaptive_integration: bool = False
    profile_softmax: Literal["all", "support"] = "all"
    error_prone_weight: Weight = 1.0

    @property
    def activation_maps(self) -> int:
        """Number of activation maps that the merge gets."""
        return 2 if self.error_prone_region else 0


def profile_transforms(
    channels: int, options: RetainAndRecoverOptions
) -> tuple[ProfileTransform | None, ProfileTransform | None]:
    """Return the transforms of row and column profiles, or nothing without unidirectional pooling.

    The support is the second axis of the product of rows, and the first of that of columns.
    """
    if not options.unidirectional_pooling:
        return None, None
    rows, columns = ((3,), (2,)) if options.profile_softmax == "support" else ((2, 3), (2, 3))
    return ProfileTransform(channels, *rows), ProfileTransform(channels, *columns)


def mean_over_shots(values: Tensor) -> Tensor:
    """Average values [B,K,...] over the shots with equal weights."""
    return values.mean(1)


@dataclass(frozen=True)
class RetainAndRecover:
    """The strategies that a meta-learner uses; without any, it has one prototype, and one merge.

    The layers are the meta-learner's own children, so that parts which are switched off have no weights, and
    RARE's have the names of its checkpoints.

    Attributes:
        options: which strategies are used.
        rows, columns: the meta-learner's layers from ``profile_transforms``.
    """

    options: RetainAndRecoverOptions
    rows: ProfileTransform | None
    columns: ProfileTransform | None

    @property
    def blended(self) -> tuple[str, ...]:
        """Entries of the guidance that test-time adaptation may blend."""
        own = ("activation", "error_prone_activation", "error_prone_share")
        return (*self._prototypes, *(own if self.options.error_prone_region else ()))

    def encode(self, feature: Tensor, mask: Tensor) -> Encoding:
        """Return what the encoding of supports needs: prototypes [B,C] and profiles of their regions.

        Args:
            feature: reduced support feature [B,C,h,w].
            mask: foreground [B,1,H,W].
        """
        inside = resize_like(mask, feature)
        weights, encoding = {OBJECT: inside}, {}
        if self.options.error_prone_region:
            lost = resize_like(lost_foreground(mask, feature), feature)
            weights[ERROR_PRONE] = lost
            encoding["error_prone_share"] = lost.mean((1, 2, 3)) / (inside.mean((1, 2, 3)) + EPSILON)
        for region, weight in weights.items():
            encoding[f"{region}prototype"] = masked_average_pool(feature, weight)
            if self.options.unidirectional_pooling:
                encoding[f"{region}rows"] = (feature * weight).mean(3)
                encoding[f"{region}columns"] = (feature * weight).mean(2)
        return encoding

    def guide(
        self,
        feature: Tensor,
        support: Encoding,
        average: Average = mean_over_shots,
        *,
        first_shot_uses_mean: bool = False,
    ) -> Encoding:
        """Return the guidance of a query by K supports.

        Args:
            feature: reduced query feature [B,C,h,w].
            support: encodings of its supports, [B,K,...].
            average: how the method averages over its shots.
            first_shot_uses_mean: whether the average takes the place of the first shot's prototype.

        Returns:
            For every region the average prototype [B,C], its activation map [B,1,h,w] and, as ``fused``, the
            prototypes of all shots at every position [B,C,h,w], as far as the strategies use them.
        """
        guidance: Encoding = {}
        if self.options.error_prone_region:
            guidance["error_prone_share"] = average(support["error_prone_share"])
        for region in self._regions:
            prototypes = support[f"{region}prototype"]
            mean = guidance[f"{region}prototype"] = average(prototypes)
            if first_shot_uses_mean:
                prototypes = torch.cat([mean.unsqueeze(1), prototypes[:, 1:]], 1)
            if self._spreads:
                shots = self._spread(feature, prototypes, support, region)
                adaptive = self.options.adaptive_integration
                guidance[f"{region}fused"] = most_similar(shots, feature) if adaptive else average(shots)
            if self.options.error_prone_region:
                guidance[f"{region}activation"] = cosine_similarity(feature, tile(mean, feature)).unsqueeze(1)
        return guidance

    def prototypes(self, guidance: Encoding) -> list[Tensor]:
        """Return the prototype of every region, the object's first: [B,C], or [B,C,h,w] if it is spread."""
        return [guidance[name] for name in self._prototypes]

    def activations(self, guidance: Encoding) -> list[Tensor]:
        """Return the activation maps of the regions, [B,1,h,w] each; none without the error-prone region."""
        return [guidance[name] for name in self.blended if name.endswith("activation")]

    def merge(
        self, merges: tuple[nn.Module, nn.Module | None], feature: Tensor, guidance: Encoding, *maps: Tensor
    ) -> Tensor:
        """Merge the query feature [B,C,h,w] with its guidance and further ``maps`` [B,*,h,w] -> [B,C,h,w].

        Args:
            merges: the layers of both branches; the second is None without the error-prone region.
        """
        prototypes = [at_every_position(prototype, feature) for prototype in self.prototypes(guidance)]
        guides = [*maps, *self.activations(guidance)]
        branches = [merge for merge in merges if merge is not None]
        return merge_regions(branches, feature, prototypes, guides, guidance.get("error_prone_share"))

    def losses(self, prediction: Prediction, episode: Episode) -> dict[str, Tensor]:
        """Return the weighted loss ``error_prone`` of a prediction with this guidance, or nothing."""
        if not self.options.error_prone_region:
            return {}
        logits, label = binary_tasks(prediction.logits, episode.ground_truth)
        loss = error_prone_loss(logits, label, prediction.parts["activation"])
        return {"error_prone": self.options.error_prone_weight * loss}

    @property
    def _regions(self) -> tuple[str, ...]:
        return (OBJECT, ERROR_PRONE) if self.options.error_prone_region else (OBJECT,)

    @property
    def _spreads(self) -> bool:
        """Whether the prototype of a query depends on the position."""
        return self.options.unidirectional_pooling or self.options.adaptive_integration

    @property
    def _prototypes(self) -> tuple[str, ...]:
        """Entries of the guidance that hold the prototype of every region."""
        return tuple(f"{region}{'fused' if self._spreads else 'prototype'}" for region in self._regions)

    def _spread(self, feature: Tensor, prototypes: Tensor, support: Encoding, region: str) -> Tensor:
        """Lay out the prototypes [B,K,C] of a region over the query grid -> [B,K,C,h,w]."""
        if not self.options.unidirectional_pooling:
            return torch.stack([tile(prototype, feature) for prototype in prototypes.unbind(1)], 1)
        profiles = (support[f"{region}{side}"].unbind(1) for side in ("rows", "columns"))
        shots = zip(prototypes.unbind(1), *profiles, strict=True)
        return torch.stack([self.expand(feature, *shot) for shot in shots], 1)

    def expand(self, feature: Tensor, prototype: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Expand a prototype [B,C] over the query grid by unidirectional pooling -> [B,C,h,w].

        The paper multiplies the tiled prototype by a row matrix from the left and a column matrix from the
        right. As the tiled prototype is constant, the sums of the matrices over the support axis suffice.
        """
        assert self.rows is not None and self.columns is not None
        down = self.rows(feature.mean(3), rows).sum(3)
        across = self.columns(columns, feature.mean(2)).sum(2)
        return (prototype.unsqueeze(2) * down).unsqueeze(3) * across.unsqueeze(2)


def at_every_position(prototype: Tensor, feature: Tensor) -> Tensor:
    """Return a prototype [B,C] at every position of ``feature`` [B,*,h,w]; one that is spread stays."""
    return tile(prototype, feature) if prototype.ndim == 2 else prototype


def most_similar(maps: Tensor, feature: Tensor) -> Tensor:
    """Select at every position the vector of K maps [B,K,C,h,w] most similar to ``feature`` [B,C,h,w]."""
    best = cosine_similarity(maps, feature.unsqueeze(1), 2).argmax(1)
    index = best[:, None, None].expand(-1, 1, *maps.shape[2:])
    return maps.gather(1, index).squeeze(1)
