"""The segmentation head of BAM's family: multi-scale context by ASPP, and a binary classifier."""

from __future__ import annotations

from torch import Tensor, nn

from fewseg.model.layer.aspp import ASPP
from fewseg.model.layer.block import Residual, classifier, reduction


class ASPPDecoder(nn.Module):
    """ASPP, a reduction, a residual block and the binary classifier (BAM, section 4.2).

    Args:
        channels: channels of the merged feature and of every layer before the classifier.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.aspp = ASPP(channels, channels)
        self.compress = reduction(5 * channels, channels)
        self.refine = Residual(channels)
        self.classify = classifier(channels)

    def forward(self, merged: Tensor) -> Tensor:
        """[B,channels,h,w] -> logits [B,2,h,w]."""
        return self.classify(self.refine(self.aspp.then(self.compress, merged)))

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return one group per layer, in the order of the published optimizers."""
        return {name: list(child.parameters()) for name, child in self.named_children()}


def published_decoder_names(child: str, suffix: str = "") -> dict[str, str]:
    """Return prefix of a parameter of the child ``child`` -> published prefix, which ends in ``suffix``."""
    return {
        f"{child}.aspp.branch": f"ASPP{suffix}.layer6_",
        f"{child}.compress": f"res1{suffix}",
        f"{child}.refine": f"res2{suffix}",
        f"{child}.classify": f"cls{suffix}",
    }
