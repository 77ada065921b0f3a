"""How images enter the networks of a method: scale of pixel values, size, mask and padding."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from fewseg.model.layer.pooling import foreground
from fewseg.model.layer.resize import resize
from fewseg.model.pixels import PIXELS
from fewseg.model.records import Inputs, SupportView


def query_input(inputs: Inputs, image: Tensor) -> Tensor:
    """Return the backbone's input for normalised queries [B,3,H,W]."""
    image = PIXELS[inputs.pixel_scale](image)
    if inputs.view is SupportView.MASK_CHANNEL:
        image = torch.cat([image, torch.zeros_like(image[:, :1])], 1)
    return pad(image, (inputs.query_margin,) * 4) if inputs.query_margin else image


def support_input(inputs: Inputs, image: Tensor, mask: Tensor) -> Tensor:
    """Return the support branch's input for normalised supports [B,3,H,W] with masks [B,H,W]."""
    image, inside = PIXELS[inputs.pixel_scale](image), foreground(mask)
    if inputs.support_side is not None:
        size = (inputs.support_side, inputs.support_side)
        image, inside = resize(image, size, align_corners=False), interpolate(inside, size)
    if inputs.view is SupportView.MASKED_IMAGE:
        return image * inside
    return torch.cat([image, inside], 1) if inputs.view is SupportView.MASK_CHANNEL else image
