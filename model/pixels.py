"""The scales of pixel values that networks need, computed from normalised images."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
"""The constants by which images are normalised when they are loaded: RGB of 0..255."""

CAFFE_MEAN = (104.00699, 116.66877, 122.67891)
"""The mean that Caffe's ImageNet networks subtract, BGR."""


def _unit(image: Tensor) -> Tensor:
    return _grey_levels(image) / 255


def _swapped(image: Tensor) -> Tensor:
    return (_grey_levels(image).flip(1) - _per_channel(MEAN, image)) / _per_channel(STD, image)


def _caffe(image: Tensor) -> Tensor:
    return _grey_levels(image).flip(1) - _per_channel(CAFFE_MEAN, image)


def _grey_levels(image: Tensor) -> Tensor:
    return image * _per_channel(STD, image) + _per_channel(MEAN, image)


def _per_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    # filled on the device of the image, as a copy from the host would wait
    return torch.cat([like.new_full((1, 1, 1, 1), value) for value in values], 1)


PIXELS: dict[str, Callable[[Tensor], Tensor]] = {
    "normalised": lambda image: image,
    "swapped": _swapped,
    "unit": _unit,
    "caffe": _caffe,
}
"""Name of a scale -> function of normalised images: ``normalised`` leaves them unchanged, ``swapped`` is BGR
normalised by the constants of RGB, ``unit`` is RGB of 0..1, and ``caffe`` is BGR of 0..255 minus Caffe's
mean."""
