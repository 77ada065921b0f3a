"""Augmentation and resizing of an image together with its masks, equal to the published OpenCV chains.

The input is uint8 RGB, the output normalised float32 tensors [3,H,W]; in between, images are float32 as
published, because rounding to uint8 would change them. Masks keep their type: uint8, or uint16 where ids
exceed 255.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fewseg.dataset.labels import VOID
from fewseg.dataset.reading.crop import Crop, draw_crop

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
"""ImageNet's channel statistics on the scale of 0..255, RGB."""

BLUR_SIZE = 5

Masks = list[np.ndarray]
Border = Sequence[float] | float


class Buffer:
    """Memory for intermediate float32 images, reused because allocation takes longer than some operations."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.float32)

    def array(self, shape: Sequence[int]) -> np.ndarray:
        """Return an array that shares its memory with all other arrays of this buffer."""
        size = math.prod(shape)
        if self._memory.size < size:
            self._memory = np.empty(size, np.float32)
        return self._memory[:size].reshape(shape)


def scale(array: np.ndarray, factor: float, interpolation: int, out: Buffer | None = None) -> np.ndarray:
    """Resize both axes by ``factor``, into ``out`` if there is one."""
    shape = (*(round(side * factor) for side in array.shape[:2]), *array.shape[2:])
    dst = out.array(shape) if out else None
    return cv2.resize(array, None, dst, fx=factor, fy=factor, interpolation=interpolation)


def rotate(
    array: np.ndarray, degrees: float, interpolation: int, border: Border, out: Buffer | None = None
) -> np.ndarray:
    """Rotate about the centre at the same size, into ``out``; ``border`` fills the empty corners."""
    height, width = array.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    dst = out.array(array.shape) if out else None
    return cv2.warpAffine(
        array,
        matrix,
        (width, height),
        dst,
        flags=interpolation,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=border,
    )


def blur(image: np.ndarray, out: Buffer | None = None) -> np.ndarray:
    """Smooth by a Gaussian with OpenCV's default sigma for the kernel size, into ``out`` if there is one."""
    return cv2.GaussianBlur(image, (BLUR_SIZE, BLUR_SIZE), 0, out.array(image.shape) if out else None)


def normalise(image: np.ndarray, out: np.ndarray) -> None:
    """Write the first three channels of ``image`` [H,W,C], normalised, into ``out`` [3,H,W], float32."""
    for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True)):
        np.subtract(image[..., channel], np.float32(mean), out=out[channel])
        np.divide(out[channel], np.float32(std), out=out[channel])


def normalised(image: Tensor) -> Tensor:
    """Normalise bytes [...,3,H,W] on their device; an image that is normalised already stays as it is.

    Subtraction and division are rounded one by one as in ``normalise``, so that every digit is the same. The
    divisor is a tensor of the device: CUDA would multiply by the reciprocal of a number.
    """
    if image.dtype != torch.uint8:
        return image
    mean, std = _statistics(image.device)
    return (image.float() - mean) / std


@lru_cache
def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):
        mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (MEAN, STD))
    return mean, std


def fill_around(out: np.ndarray, rows: slice, columns: slice, grey: Sequence[float]) -> None:
    """Fill ``out`` [3,H,W] outside of rows and columns with the normalised value of ``grey``."""
    levels, mean, std = (np.array(values, np.float32) for values in (grey, MEAN, STD))
    value = ((levels - mean) / std)[:, None, None]
    out[:, : rows.start] = value
    out[:, rows.stop :] = value
    out[:, rows, : columns.start] = value
    out[:, rows, columns.stop :] = value


@dataclass(frozen=True)
class TrainTransform:
    """The published training chain: scale, rotate, blur, flip, crop, normalise; it is not thread-safe.

    Attributes:
        size: side of the square crop.
        scale: range of the scale factor.
        rotate: range of the angle in degrees.
    """

    size: int
    scale: tuple[float, float] = (0.9, 1.1)
    rotate: tuple[float, float] = (-10.0, 10.0)
    _buffers: tuple[Buffer, ...] = field(
        default_factory=lambda: (Buffer(), Buffer(), Buffer()), repr=False, compare=False
    )

    def __call__(
        self,
        image: np.ndarray,
        masks: Sequence[np.ndarray],
        rng: random.Random,
        *,
        keep: int = 1,
        out: Tensor | None = None,
    ) -> tuple[Tensor, Masks]:
        """Draw one augmentation and apply it to the image and to every mask.

        The masks come first, since the crop depends on them: only the cropped part of the image is blurred
        and normalised.

        Args:
            image: uint8 [H,W,3].
            masks: uint8 [H,W] each.
            rng: random generator, called in the published order.
            keep: label of which the crop of the first mask should keep 85 % of the pixels.
            out: float32 [3,S,S] to write the image to.

        Returns:
            Image float32 [3,S,S] and masks uint8 [S,S].
        """
        low, high = self.scale
        factor = low + (high - low) * rng.random()
        low, high = self.rotate
        angle = low + (high - low) * rng.random() if rng.random() < 0.5 else None
        blurred, flipped = rng.random() < 0.5, rng.random() < 0.5

        moved = []
        for mask in masks:
            mask = scale(mask, factor, cv2.INTER_NEAREST)
            mask = mask if angle is None else rotate(mask, angle, cv2.INTER_NEAREST, VOID)
            moved.append(cv2.flip(mask, 1) if flipped else mask)
        crop = draw_crop(moved[0], self.size, keep, rng)
        out = torch.empty(3, self.size, self.size) if out is None else out
        self._write(self._moved(image, factor, angle), crop, blurred, flipped, out.numpy())
        return out, [crop.mask(mask) for mask in moved]

    def _moved(self, image: np.ndarray, factor: float, angle: float | None) -> np.ndarray:
        """Scale and rotate an image, using the first two buffers alternately."""
        first, second, _ = self._buffers
        if angle is not None:
            # A fourth channel makes OpenCV's warp several times faster and does not change the others.
            image = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)
        plain = first.array(image.shape)
        np.copyto(plain, image)
        scaled = scale(plain, factor, cv2.INTER_LINEAR, second)
        return scaled if angle is None else rotate(scaled, angle, cv2.INTER_LINEAR, (*MEAN, 0), first)

    def _write(self, image: np.ndarray, crop: Crop, blurred: bool, flipped: bool, out: np.ndarray) -> None:
        """Blur, flip, crop and normalise only the part of the image that the crop shows."""
        rows, columns, out_rows, out_columns = crop.window(*image.shape[:2])
        if flipped:  # the window was drawn on the flipped masks
            columns = slice(image.shape[1] - columns.stop, image.shape[1] - columns.start)
        part = _blurred(image, rows, columns, self._buffers[2]) if blurred else image[rows, columns]
        fill_around(out, out_rows, out_columns, MEAN)
        normalise(part[:, ::-1] if flipped else part, out[:, out_rows, out_columns])


def _blurred(image: np.ndarray, rows: slice, columns: slice, out: Buffer) -> np.ndarray:
    """Return a part of the blurred image without blurring the rest."""
    halo = BLUR_SIZE // 2
    top, left = max(rows.start - halo, 0), max(columns.start - halo, 0)
    part = blur(image[top : rows.stop + halo, left : columns.stop + halo], out)
    return part[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]


@dataclass(frozen=True)
class Resize:
    """Deterministic resizing, for evaluation.

    Attributes:
        size: side of the network's square input in pixels; unused by ``native``.
        rule: ``letterbox``: the longer side becomes ``size``, both sides are rounded down to multiples of 8,
            the rest is padding. ``shrink``: the same, but smaller images keep their size. ``stretch``: both
            sides become ``size``. ``native``: the image keeps its size.
        antialias: shrink images as Pillow does, which averages over all pixels, instead of OpenCV's linear
            interpolation, which skips some.
    """

    size: int
    rule: str = "letterbox"
    antialias: bool = False

    def content(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the resized image, which is at the top left of the network's input."""
        if self.rule == "stretch":
            return self.size, self.size
        longer = max(height, width)
        if self.rule == "native" or (self.rule == "shrink" and longer <= self.size):
            return height, width
        height, width = (max(int(side * self.size / longer) // 8 * 8, 8) for side in (height, width))
        return height, width

    def canvas(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the network's input."""
        return (height, width) if self.rule == "native" else (self.size, self.size)

    def image(self, image: np.ndarray) -> Tensor:
        """Resize uint8 [h,w,3] to a normalised tensor [3,H,W]; padding is 0 before normalisation."""
        return self._normalised(self._resized(image), self.canvas(*image.shape[:2]))

    def compact(self, image: np.ndarray) -> Tensor:
        """Resize uint8 [h,w,3] to what ``normalised`` turns into the result of ``image``, to the last bit.

        It is uint8 [3,H,W], a quarter of the memory, where the resized pixels are whole numbers: where the
        image keeps its size, and with ``antialias``. OpenCV's published interpolation gives fractions, which
        bytes cannot hold; there it is the normalised image itself.
        """
        pixels, (height, width) = self._resized(image), self.canvas(*image.shape[:2])
        if pixels.dtype != np.uint8:
            return self._normalised(pixels, (height, width))
        out = np.zeros((3, height, width), np.uint8)
        out[:, : pixels.shape[0], : pixels.shape[1]] = pixels.transpose(2, 0, 1)
        return torch.from_numpy(out)

    def _resized(self, image: np.ndarray) -> np.ndarray:
        """Resize uint8 [h,w,3]: uint8 where the pixels are whole numbers, otherwise float32."""
        height, width = self.content(*image.shape[:2])
        if image.shape[:2] == (height, width):
            return image
        if self.antialias:
            return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        return cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)

    @staticmethod
    def _normalised(pixels: np.ndarray, canvas: tuple[int, int]) -> Tensor:
        height, width = pixels.shape[:2]
        out = np.empty((3, *canvas), np.float32)
        fill_around(out, slice(0, height), slice(0, width), (0, 0, 0))
        normalise(pixels, out[:, :height, :width])
        return torch.from_numpy(out)

    def label(self, mask: np.ndarray) -> np.ndarray:
        """Resize a mask [h,w] like its image, to [H,W] of the same type; padding is void."""
        height, width = self.content(*mask.shape)
        out = np.full(self.canvas(*mask.shape), VOID, mask.dtype)
        same = mask.shape == (height, width)
        out[:height, :width] = (
            mask if same else cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
        )
        return out

    def padding(self, height: int, width: int) -> Tensor:
        """Return where the network's input is padding, for an image of this size, bool [H,W]."""
        out = torch.ones(self.canvas(height, width), dtype=torch.bool)
        rows, columns = self.content(height, width)
        out[:rows, :columns] = False
        return out


@dataclass(frozen=True)
class PlainTransform:
    """The training chains without scaling and rotation: HSNet's and PANet's squares, MLC's crops.

    Attributes:
        size: side of the square output, in pixels.
        crops: crop a window, padding smaller images on the right and below as in testing; otherwise both
            sides are stretched to ``size``.
        flips: flip half of the images horizontally.
    """

    size: int
    crops: bool = False
    flips: bool = False

    def __call__(
        self,
        image: np.ndarray,
        masks: Sequence[np.ndarray],
        rng: random.Random,
        *,
        keep: int = 1,
        out: Tensor | None = None,
    ) -> tuple[Tensor, Masks]:
        """Draw a window and a flip; the arguments are those of ``TrainTransform``, ``keep`` has no effect."""
        if self.crops:
            image, masks = self._cut(image, list(masks), rng)
        resize = Resize(self.size, "shrink" if self.crops else "stretch")
        changed, labels = resize.image(image), [resize.label(mask) for mask in masks]
        if self.flips and rng.random() < 0.5:
            changed, labels = changed.flip(-1), [cv2.flip(label, 1) for label in labels]
        return changed if out is None else out.copy_(changed), labels

    def _cut(self, image: np.ndarray, masks: Masks, rng: random.Random) -> tuple[np.ndarray, Masks]:
        top, left = (rng.randint(0, max(side - self.size, 0)) for side in image.shape[:2])
        window = slice(top, top + self.size), slice(left, left + self.size)
        return image[window], [np.ascontiguousarray(mask[window]) for mask in masks]


def square_label(label: np.ndarray) -> np.ndarray:
    """Pad a label [H,W] on the right or below with void, to a square of its longer side."""
    out = np.full((max(label.shape),) * 2, VOID, label.dtype)
    out[: label.shape[0], : label.shape[1]] = label
    return out


def look_up(mask: np.ndarray, table: np.ndarray) -> Tensor:
    """Map a mask [H,W] through a table like that of ``class_table`` to labels, int64 [H,W]."""
    return torch.from_numpy(relabel(mask, table)).long()


def relabel(mask: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Map a uint8 or uint16 mask [H,W] through a table to uint8 [H,W]; ids beyond the table become 0."""
    if mask.dtype == np.uint8:
        return cv2.LUT(mask, table[:256])
    return np.where(mask < len(table), table[np.minimum(mask, len(table) - 1)], np.uint8(0))


def class_table(class_ids: Sequence[int]) -> np.ndarray:
    """Return the table that maps the n-th of ``class_ids`` to n (from 1), void to itself, all else to 0."""
    table = np.zeros(max(256, max(class_ids, default=0) + 1), np.uint8)
    table[list(class_ids)] = np.arange(1, len(class_ids) + 1)
    table[VOID] = VOID
    return table
