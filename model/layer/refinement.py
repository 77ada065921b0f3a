"""CANet's segmentation head, which PMMs use too: from comparison and previous prediction to logits.

Zhang et al., "CANet", CVPR 2019, section 4.2 (iterative optimisation module).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fewseg.model.layer.aspp import ASPP
from fewseg.model.layer.block import activated
from fewseg.model.layer.resize import resize_like


class HistoryRefinement(nn.Module):
    """Residual blocks, the first of which reads the previous prediction, then ASPP and a classifier.

    Args:
        channels: channels of the comparison and of every layer before the classifier.
        history: whether it reads a previous prediction.
        normalise: whether BatchNorm follows the layer after the ASPP.
        dropout: share of channels that are dropped after every branch of the ASPP and, unless ``normalise``,
            after the layer that follows it.
    """

    def __init__(
        self, channels: int, *, history: bool = True, normalise: bool = False, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.residual0 = _residual(channels + 2 * history, channels)
        self.residual1 = _residual(channels, channels)
        self.residual2 = _residual(channels, channels)
        self.aspp = ASPP(channels, channels, dropout, kaiming=False)
        last = 0.0 if normalise else dropout
        self.compress = activated(5 * channels, channels, 1, normalise=normalise, dropout=last)
        self.classify = nn.Conv2d(channels, 2, 1)

    def forward(self, comparison: Tensor, history: Tensor | None) -> Tensor:
        """Return the logits [B,2,h,w].

        Args:
            comparison: [B,channels,h,w].
            history: previously predicted probabilities of background and foreground [B,2,*,*]; zero in the
                first pass. None if the head reads none.
        """
        x = comparison
        x = x + self.residual0(x if history is None else torch.cat([x, resize_like(history, x)], 1))
        x = x + self.residual1(x)
        x = x + self.residual2(x)
        return self.classify(self.aspp.then(self.compress, x))


def published_refinement_names(child: str, aspp: str) -> dict[str, str]:
    """Return prefix under ``child`` -> published prefix, with ``aspp`` before the index of a branch."""
    names = {f"{child}.residual{index}": f"residule{index + 1}" for index in range(3)}
    return names | {
        f"{child}.aspp.branch": aspp,
        f"{child}.compress": "layer7",
        f"{child}.classify": "layer9",
    }


def _residual(inputs: int, outputs: int) -> nn.Sequential:
    """Return two 3x3 convolutions, each after a ReLU; the first ReLU must not change its input in place."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1),
    )
