"""What PFENet's paper compares its feature enrichment module with: one scale, with or without context."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from fewseg.model.layer.aspp import ASPP
from fewseg.model.layer.block import Residual, classifier, reduction
from fewseg.model.layer.error_prone import merge_regions
from fewseg.model.layer.pyramid_pooling import PyramidPooling
from fewseg.model.layer.retain_and_recover import at_every_position


class SingleScaleDecoder(nn.Module):
    """Combine query and guidance on the query's own grid, add context, refine and classify.

    Args:
        channels: channels of the query feature and of the prototype.
        context: ``aspp`` as in BAM's decoder, ``ppm`` (PSPNet's pyramid pooling, without BatchNorm like the
            rest of the head) or ``none``.
        maps: channels of the maps that guide the query besides the prototype.
        error_prone: whether there is a second branch, for a region of the support.
    """

    def __init__(self, channels: int, context: str, *, maps: int = 1, error_prone: bool = False) -> None:
        super().__init__()
        self.merge = reduction(2 * channels + maps, channels)
        self.error_prone_merge = reduction(2 * channels + maps, channels) if error_prone else None
        self.context = _context(channels, context)
        self.refine = Residual(channels)
        self.classify = classifier(channels)

    def forward(
        self,
        feature: Tensor,
        prototypes: Sequence[Tensor],
        maps: Sequence[Tensor],
        share: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Segment the query; see ``EnrichmentDecoder``, whose scale this is, without inner logits."""
        branches = [self.merge] if self.error_prone_merge is None else [self.merge, self.error_prone_merge]
        everywhere = [at_every_position(prototype, feature) for prototype in prototypes]
        merged = merge_regions(branches, feature, everywhere, maps, share)
        return self.classify(self.refine(self.context(merged))), {}

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return one group per child."""
        return {name: list(child.parameters()) for name, child in self.named_children()}


def _context(channels: int, kind: str) -> nn.Sequential:
    if kind == "aspp":
        return nn.Sequential(ASPP(channels, channels), reduction(5 * channels, channels))
    if kind == "ppm":
        reduced = max(1, channels // 4)
        pooling = PyramidPooling(channels, reduced, normalise=False)
        return nn.Sequential(pooling, reduction(channels + 4 * reduced, channels))
    return nn.Sequential()
