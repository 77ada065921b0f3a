"""PFENet's feature enrichment module and its classifiers, which MIANet uses too.

Tian et al., "Prior Guided Feature Enrichment Network for Few-Shot Segmentation", TPAMI 2020, section 4.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from fewseg.model.episode import Prediction
from fewseg.model.layer.block import Residual, classifier, reduction
from fewseg.model.layer.error_prone import merge_regions
from fewseg.model.layer.loss import pixel_cross_entropy
from fewseg.model.layer.pooling import tile
from fewseg.model.layer.resize import resize_like
from fewseg.model.records import Map, MapKind

_INNER = "inner"

INTERACTIONS: Mapping[str, tuple[str, ...]] = {
    "top_down": ("down",),
    "bottom_up": ("up",),
    "top_down_bottom_up": ("down", "up"),
    "bottom_up_top_down": ("up", "down"),
    "none": (),
}
"""Name of an inter-scale interaction -> the paths that follow each other: from fine to coarse scales (down,
as in the published code) or from coarse to fine ones. The second of two paths has layers of its own."""

INNER_MAP = Map(f"{_INNER}#", "foreground at scale #", MapKind.FOREGROUND)
"""How figures show the inner logits."""

PUBLISHED_NAMES: Mapping[str, str] = {
    "decoder.merge": "init_merge",
    "decoder.link": "alpha_conv",
    "decoder.enrich": "beta_conv",
    "decoder.inner": "inner_cls",
    "decoder.fuse": "res1",
    "decoder.refine": "res2",
    "decoder.classify": "cls",
}
"""Names in published checkpoints, where this module is called ``decoder``."""


class EnrichmentDecoder(nn.Module):
    """Combine query and guidance at several scales, pass each scale's result to the next, fuse and classify.

    Args:
        channels: channels of the query feature and of the prototype; 256 in the published networks.
        levels: number of scales.
        maps: channels of the maps that guide every scale besides the prototype.
        error_prone: whether every scale has a second branch, for a region of the support.
        interaction: how information passes between the scales; see ``INTERACTIONS``.
    """

    def __init__(
        self,
        channels: int,
        levels: int,
        *,
        maps: int = 1,
        error_prone: bool = False,
        interaction: str = "top_down",
    ) -> None:
        super().__init__()
        self.paths = INTERACTIONS[interaction]
        self.merge = _merges(2 * channels + maps, channels, levels)
        self.link = _merges(2 * channels, channels, levels - 1) if self.paths else None
        self.enrich = nn.ModuleList(Residual(channels) for _ in range(levels))
        self.inner = nn.ModuleList(classifier(channels) for _ in range(levels))
        self.fuse = reduction(levels * channels, channels)
        self.refine = Residual(channels)
        self.classify = classifier(channels)
        self.error_prone_merge = _merges(2 * channels + maps, channels, levels) if error_prone else None
        if len(self.paths) == 2:
            self.second_link = _merges(2 * channels, channels, levels - 1)
            self.second_enrich = nn.ModuleList(Residual(channels) for _ in range(levels))

    def forward(
        self,
        feature: Tensor,
        prototypes: Sequence[Tensor],
        maps: Sequence[Tensor],
        share: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Segment the query.

        Args:
            feature: query feature [B,C,h,w].
            prototypes: the prototype of every branch, the class's first: [B,C], or [B,C,h,w] if it differs
                between positions.
            maps: further guidance per scale, finest first, [B,maps,b,b]: PFENet's prior; its size is the size
                of the scale's grid.
            share: weight of the second branch [B].

        Returns:
            Logits [B,2,h,w], and the inner logits of every scale, [B,2,b,b], as ``inner0``, ``inner1``, ...
        """
        branches = [self.merge] if self.error_prone_merge is None else [self.merge, self.error_prone_merge]
        scales = [
            merge_regions(
                [branch[level] for branch in branches],
                _pooled(feature, guide),
                [_at_scale(prototype, guide) for prototype in prototypes],
                [guide],
                share,
            )
            for level, guide in enumerate(maps)
        ]
        upwards = self.paths[:1] == ("up",)
        scales, enriched = _pass_on(scales, feature, self.link, self.enrich, upwards=upwards)
        if len(self.paths) == 2:
            second = self.second_link, self.second_enrich
            scales, enriched = _pass_on(scales, feature, *second, upwards=not upwards)
        inner = {f"{_INNER}{level}": self.inner[level](x) for level, x in enumerate(scales)}
        return self.classify(self.refine(self.fuse(torch.cat(enriched, 1)))), inner

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return one group per child, in the order of the published optimizers."""
        return {name: list(child.parameters()) for name, child in self.named_children()}


def _merges(inputs: int, outputs: int, number: int) -> nn.ModuleList:
    return nn.ModuleList(reduction(inputs, outputs) for _ in range(number))


def _at_scale(prototype: Tensor, guide: Tensor) -> Tensor:
    """Return a prototype [B,C] or [B,C,h,w] on the grid of ``guide``, pooled like the query feature."""
    return tile(prototype, guide) if prototype.ndim == 2 else _pooled(prototype, guide)


def _pooled(x: Tensor, guide: Tensor) -> Tensor:
    return adaptive_avg_pool2d(x, (guide.shape[-2], guide.shape[-1]))


def _pass_on(
    scales: Sequence[Tensor],
    feature: Tensor,
    link: nn.ModuleList | None,
    enrich: nn.ModuleList,
    *,
    upwards: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Enrich every scale after adding what the one before it passes on.

    Args:
        scales: features of all scales, finest first, [B,C,b,b].
        feature: query feature [B,C,h,w]. What is passed on is resized to its grid first, as published.
        link: layers between neighbouring scales, or None if nothing is passed on.
        enrich: the layer of every scale.
        upwards: whether the coarsest scale comes first.

    Returns:
        The enriched features of all scales, finest first, on their own grids and on that of the query.
    """
    own, resized = list(scales), list(scales)
    order = range(len(scales))
    before: Tensor | None = None
    for step, level in enumerate(reversed(order) if upwards else order):
        x = scales[level]
        if link is not None and before is not None:
            x = x + link[step - 1](torch.cat([x, resize_like(before, x)], 1))
        own[level] = enrich[level](x)
        before = resized[level] = resize_like(own[level], feature)
    return own, resized


def enrichment_losses(prediction: Prediction, label: Tensor, inner_weight: float) -> dict[str, Tensor]:
    """Return the cross-entropy of the prediction, and the weighted mean of those of all scales, if any."""
    inner = [
        pixel_cross_entropy(logits, label)
        for name, logits in prediction.parts.items()
        if name.startswith(_INNER)
    ]
    main = {"main": pixel_cross_entropy(prediction.logits, label)}
    return main | {"inner": inner_weight * torch.stack(inner).mean()} if inner else main


def check_scales(scales: Sequence[float]) -> None:
    """Raise ValueError unless ``scales`` is a valid argument of ``grid_sizes``."""
    valid = bool(scales) and all(
        isinstance(scale, int | float) and scale > 0 and (scale <= 1 or scale == int(scale))
        for scale in scales
    )
    if not valid:
        raise ValueError(
            f"ppm_scales must be grid sizes in whole positions, or fractions of at most 1.0 "
            f"of the feature grid, such as [60, 30, 15, 8] or [1.0, 0.5, 0.25, 0.125]; got {list(scales)}"
        )


def grid_sizes(scales: Sequence[float], grid: Sequence[int]) -> list[tuple[int, int]]:
    """Return the grid of every scale.

    Args:
        scales: sides of square grids; values up to 1.0 are fractions of ``grid``, rounded down to at least 1.
        grid: height and width of the query feature.
    """
    height, width = grid
    return [
        (max(1, int(height * scale)), max(1, int(width * scale))) if scale <= 1 else (int(scale), int(scale))
        for scale in scales
    ]
