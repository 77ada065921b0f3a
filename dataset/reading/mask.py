"""Read photographs and class-index masks from disk, and describe in one line what is wrong with a file.

Pillow reads the header of every file first, so that sizes are compared, and images that are too large are
refused, before any pixel is decoded. Pillow decodes the masks, because it keeps the indices of a palette;
OpenCV decodes the photographs, as in the published pipelines.
"""

from __future__ import annotations

import io
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from fewseg.util.errors import DataError

Made = TypeVar("Made")

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")
"""The formats that are read, by Pillow's names. Its others are no photographs, and some run programs."""

MOST_BYTES = 1 << 30
"""The largest file that is read. Pillow limits the number of pixels to about 179 million."""

_JPEG, _JPEG_END = ("JPEG", "MPO"), b"\xff\xd9"
_INDEX_MODES = {"P", "L", "1"}
"""Pillow's modes whose pixels are one byte of index: palette, grey, bilevel."""


@dataclass(frozen=True)
class ImageFile:
    """An image file whose header was read, but no pixel decoded.

    Attributes:
        path: path of the file.
        what: "image" or "mask", for messages.
        data: content of the file.
        format, mode: Pillow's names of the file format and the pixel format.
        size: width and height as stored; a photograph may be rotated when it is decoded.
    """

    path: Path
    what: str
    data: bytes
    format: str
    mode: str
    size: tuple[int, int]

    @classmethod
    def open(cls, path: str | Path, what: str) -> ImageFile:
        """Read a file and parse its header.

        Raises:
            DataError: the file is missing, empty, not an image or too large.
        """
        path = Path(path)
        data = _read_bytes(path, what)
        return cls(path, what, data, *_with_pillow(path, what, data, _header))

    def photograph(self) -> np.ndarray:
        """Decode RGB, uint8 [H,W,3].

        Raises:
            DataError: the file is corrupt or truncated.
        """
        try:
            image = cv2.imdecode(np.frombuffer(self.data, np.uint8), cv2.IMREAD_COLOR)
        except cv2.error:
            image = None
        if image is None:
            raise DataError(f"{self.path}: the {self.what} is corrupt or truncated; fetch or export it again")
        if self.format in _JPEG and not self.data.rstrip(b"\0").endswith(_JPEG_END):
            # Older versions of OpenCV fill the rest of a truncated JPEG with grey.
            _with_pillow(self.path, self.what, self.data, methodcaller("load"))
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)

    def indices(self) -> np.ndarray:
        """Decode one index per pixel, uint8 [H,W]; see ``read_mask``.

        Raises:
            DataError: the file is corrupt, truncated, or not an image of indices.
        """
        return self._decoded(self._indices_of)

    def brightness(self) -> np.ndarray:
        """Decode the largest of the three channels of every pixel, uint8 [H,W], for a black and bright mask.

        Raises:
            DataError: the file is corrupt, truncated, or a JPEG.
        """
        return self._decoded(lambda mask: np.asarray(mask.convert("RGB")).max(axis=2))

    def _decoded(self, use: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
        if self.format in _JPEG:
            raise DataError(
                f"{self.path}: a JPEG cannot be a mask: its compression is lossy and changes class indices "
                "along every edge; export the mask as PNG from the program that it was drawn with"
            )
        return _with_pillow(self.path, self.what, self.data, use)

    def _indices_of(self, mask: Image.Image) -> np.ndarray:
        stored = np.asarray(mask)
        values = stored if mask.mode in _INDEX_MODES else _wide_indices(mask.mode, stored)
        if values is None:
            raise DataError(
                f"{self.path}: the mask has mode {mask.mode}, but one 8-bit class index per pixel is needed; "
                "save it as a palette or grey PNG without transparency"
            )
        return np.array(values, np.uint8)  # a copy, since Pillow's own memory cannot be written to


def open_pair(image_path: str | Path, mask_path: str | Path) -> tuple[ImageFile, ImageFile]:
    """Read the headers of an image and its mask, and compare their sizes.

    Height and width may be exchanged here, because a photograph may be rotated when it is decoded;
    ``check_same_size`` compares the decoded sizes.

    Raises:
        DataError: one of them is missing, empty, not an image or too large, or their sizes differ.
    """
    image, mask = ImageFile.open(image_path, "image"), ImageFile.open(mask_path, "mask")
    if sorted(image.size) != sorted(mask.size):
        raise _sizes_differ(image.size, mask.size, image_path, mask_path)
    return image, mask


def read_pair(image_path: str | Path, mask_path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a photograph, RGB uint8 [H,W,3], and its mask of class indices, uint8 [H,W].

    Raises:
        DataError: see ``open_pair``, ``read_image`` and ``read_mask``.
    """
    image_file, mask_file = open_pair(image_path, mask_path)
    image, mask = image_file.photograph(), mask_file.indices()
    check_same_size(image, mask, image_path, mask_path)
    return image, mask


def read_image(path: str | Path) -> np.ndarray:
    """Read a photograph as RGB, uint8 [H,W,3].

    Raises:
        DataError: the file is missing, empty, truncated, not an image or too large.
    """
    return ImageFile.open(path, "image").photograph()


def read_mask(path: str | Path) -> np.ndarray:
    """Read a mask of class indices, uint8 [H,W].

    The indices are those of a palette PNG (decoded to grey, class 1 of VOC would become 38), or the values of
    a grey PNG, which the BAM family distributes. Grey values may be stored in 16 bits or in three equal
    channels; an alpha channel is accepted if every pixel is opaque.

    Raises:
        DataError: the file is missing, truncated, not an image, too large, a JPEG, or has no indices.
    """
    return ImageFile.open(path, "mask").indices()


def label_counts(mask: np.ndarray) -> np.ndarray:
    """Return the number of pixels of every value in a uint8 mask [H,W], int64 [256]."""
    blocks = np.array_split(mask.reshape(-1), 1 + (mask.size >> 24))  # counting takes 8 bytes per pixel
    return np.sum([np.bincount(block, minlength=256) for block in blocks], axis=0)


def check_same_size(
    image: np.ndarray, mask: np.ndarray, image_path: str | Path, mask_path: str | Path
) -> None:
    """Raise DataError unless mask [H,W] and image [H,W,3] have the same height and width."""
    if image.shape[:2] != mask.shape:
        raise _sizes_differ(image.shape[1::-1], mask.shape[::-1], image_path, mask_path)


def _sizes_differ(
    image: tuple[int, ...], mask: tuple[int, ...], image_path: str | Path, mask_path: str | Path
) -> DataError:
    return DataError(
        f"{mask_path}: the mask is {mask[0]}x{mask[1]}, but its image {image_path} is {image[0]}x{image[1]}; "
        "both must have the same size"
    )


def _header(image: Image.Image) -> tuple[str, str, tuple[int, int]]:
    header = image.format or "", image.mode, image.size
    image.verify()  # compares checksums, which decoding does not: it would give wrong indices silently
    return header


def _wide_indices(mode: str, values: np.ndarray) -> np.ndarray | None:
    """Return the indices of a mask that has them in 16 or 32 bits or in several equal channels, or None."""
    if mode in ("LA", "RGBA"):
        if (values[..., -1] != 255).any():
            return None
        values = values[..., :-1]
    if mode in ("LA", "RGB", "RGBA"):
        return values[..., 0] if (values == values[..., :1]).all() else None
    if mode.startswith("I") and values.min(initial=0) >= 0 and values.max(initial=0) <= 255:
        return values
    return None


def _read_bytes(path: Path, what: str) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: the {what} cannot be read (not a file)")
        if status.st_size > MOST_BYTES:
            raise DataError(
                f"{path}: the {what} has {status.st_size >> 20} MiB, which is more than any that is read; "
                "scale it down"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: the {what} is missing; check the image list and the data root") from None
    except OSError as error:
        raise DataError(f"{path}: the {what} cannot be read ({error.strerror})") from None


def _with_pillow(path: Path, what: str, data: bytes, use: Callable[[Image.Image], Made]) -> Made:
    """Open ``data`` with Pillow and return what ``use`` makes of the image.

    Raises:
        DataError: instead of any error that Pillow raises for a damaged file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # errors are raised; warnings would repeat for every image
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return use(image)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{path}: the {what} has more than 178 million pixels; scale it down") from None
    except Exception as error:  # decoders raise many undocumented kinds of errors for damaged files
        reason = "no known format" if isinstance(error, UnidentifiedImageError) else _one_line(error)
        raise DataError(f"{path}: the {what} is corrupt or truncated ({reason}); export it again") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
