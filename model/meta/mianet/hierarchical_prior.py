"""MIANet's hierarchical prior: similarity maps at several scales, each weighted by the one before.

Yang et al., "MIANet", CVPR 2023 (hierarchical prior module). The maps have no trained parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from fewseg.model.layer.prior import scale_to_unit_range, unit
from fewseg.model.layer.resize import resize


def support_means(high: Tensor, mask: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Return the mean unit feature of a masked support at every level, [B,levels,C].

    The published prior is the mean cosine with all support positions, where positions outside the mask count
    as 0. It equals the product of the query's unit feature with this one vector.

    Args:
        high: features [B,C,h,w] of the unmasked image.
        mask: soft foreground [B,1,h,w].
        sizes: grid of every level. The mask is downsampled from level to level, as published.
    """
    means, current = [], mask
    for level, size in enumerate(sizes):
        scaled = resize(current, size)
        means.append(unit(resize(high, size) * scaled).mean((2, 3)))
        if not _is_upsampled(level, size, high):
            current = scaled
    return torch.stack(means, 1)


def hierarchical_prior(high: Tensor, means: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Return the prior of every level, [B,1,b,b], each level weighted by the prior of the one before.

    Args:
        high: query features [B,C,h,w].
        means: result of ``support_means`` for one support, [B,levels,C].
        sizes: grid of every level.
    """
    priors, current = [], high
    for level, (size, mean) in enumerate(zip(sizes, means.unbind(1), strict=True)):
        upsampled = _is_upsampled(level, size, high)
        scaled = resize(high, size) if upsampled else adaptive_avg_pool2d(current, size)
        # Mean cosines vary by thousandths over an image. In single precision, scaling them to [0,1] would
        # amplify rounding errors from level to level.
        double = scaled.double()
        cosine = torch.einsum("bchw,bc->bhw", double, mean.double()) / double.norm(dim=1).clamp_min(1e-7)
        priors.append(scale_to_unit_range(cosine.flatten(1)).view(-1, 1, *size).to(high.dtype))
        if not upsampled:
            current = scaled * priors[-1]
    return priors


def _is_upsampled(level: int, size: tuple[int, int], high: Tensor) -> bool:
    """Whether a level is finer than the high feature, as VGG16's first is, and uses an upsampled copy."""
    return level == 0 and size[0] > high.shape[-2]
