"""How images enter the networks of a method: their scale of pixels, their mask, what surrounds them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from fewseg.model.layer.pooling import foreground
from fewseg.model.layer.resize import resize
from fewseg.model.records import Inputs, SupportView

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
"""How images are normalised where they come from: RGB on the scale of 0..255."""

CAFFE_MEAN = (104.00699, 116.66877, 122.67891)
"""What Caffe's ImageNet networks subtract: BGR."""


def query_input(inputs: Inputs, image: Tensor) -> Tensor:
    """Return what the backbone sees of normalised queries [B,3,H,W]."""
    image = _PIXELS[inputs.pixel_scale](image)
    if inputs.view is SupportView.MASK_CHANNEL:
        image = torch.cat([image, torch.zeros_like(image[:, :1])], 1)
    return pad(image, (inputs.query_margin,) * 4) if inputs.query_margin else image


def support_input(inputs: Inputs, image: Tensor, mask: Tensor) -> Tensor:
    """Return what the support branch is fed of normalised supports [B,3,H,W] with masks [B,H,W]."""
    image, inside = _PIXELS[inputs.pixel_scale](image), foreground(mask)
    if inputs.support_side is not None:
        size = (inputs.support_side, inputs.support_side)
        image, inside = resize(image, size, align_corners=False), interpolate(inside, size)
    if inputs.view is SupportView.MASKED_IMAGE:
        return image * inside
    return torch.cat([image, inside], 1) if inputs.view is SupportView.MASK_CHANNEL else image


def _unit(image: Tensor) -> Tensor:
    return _grey_levels(image) / 255


def _swapped(image: Tensor) -> Tensor:
    return (_grey_levels(image).flip(1) - _per_channel(MEAN, image)) / _per_channel(STD, image)


def _caffe(image: Tensor) -> Tensor:
    return _grey_levels(image).flip(1) - _per_channel(CAFFE_MEAN, image)


def _grey_levels(image: Tensor) -> Tensor:
    return image * _per_channel(STD, image) + _per_channel(MEAN, image)


def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)


_PIXELS: dict[str, Callable[[Tensor], Tensor]] = {
    "normalised": lambda image: image,
    "swapped": _swapped,
    "unit": _unit,
    "caffe": _caffe,
}
"""``normalised`` as they come, ``swapped`` BGR under the constants of RGB, ``unit`` RGB of 0..1, ``caffe``
BGR of 0..255 without Caffe's mean."""
