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
from fewseg.model.layer.loss import pixel_cross_entropy
from fewseg.model.layer.pooling import tile
from fewseg.model.layer.resize import resize_like

_INNER = "inner"

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
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.merge = nn.ModuleList(reduction(2 * channels + 1, channels) for _ in range(levels))
        self.link = nn.ModuleList(reduction(2 * channels, channels) for _ in range(levels - 1))
        self.enrich = nn.ModuleList(Residual(channels) for _ in range(levels))
        self.inner = nn.ModuleList(classifier(channels) for _ in range(levels))
        self.fuse = reduction(levels * channels, channels)
        self.refine = Residual(channels)
        self.classify = classifier(channels)

    def forward(
        self, feature: Tensor, prototype: Tensor, priors: Sequence[Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Segment the query.

        Args:
            feature: query feature [B,C,h,w].
            prototype: prototype of the class [B,C].
            priors: one map per scale, finest first, [B,1,b,b]; its size is the size of the scale's grid.

        Returns:
            Logits [B,2,h,w], and the inner logits of every scale, [B,2,b,b], as ``inner0``, ``inner1``, ...
        """
        enriched: list[Tensor] = []
        inner: dict[str, Tensor] = {}
        for level, prior in enumerate(priors):
            pooled = adaptive_avg_pool2d(feature, (prior.shape[-2], prior.shape[-1]))
            x = self.merge[level](torch.cat([pooled, tile(prototype, prior), prior], 1))
            if level:  # the finer scale is resized to the query's grid first, as published
                x = x + self.link[level - 1](torch.cat([x, resize_like(enriched[-1], x)], 1))
            x = self.enrich[level](x)
            inner[f"{_INNER}{level}"] = self.inner[level](x)
            enriched.append(resize_like(x, feature))
        return self.classify(self.refine(self.fuse(torch.cat(enriched, 1)))), inner

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return one group per child, in the order of the published optimizers."""
        return {name: list(child.parameters()) for name, child in self.named_children()}


def enrichment_losses(prediction: Prediction, label: Tensor, inner_weight: float) -> dict[str, Tensor]:
    """Return the cross-entropy of the prediction, and the weighted mean of those of all scales."""
    inner = [
        pixel_cross_entropy(logits, label)
        for name, logits in prediction.parts.items()
        if name.startswith(_INNER)
    ]
    return {
        "main": pixel_cross_entropy(prediction.logits, label),
        "inner": inner_weight * torch.stack(inner).mean(),
    }


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
