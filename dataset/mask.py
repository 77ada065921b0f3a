"""Read photographs and class-index masks from disk, and say in one line what is wrong with a bad one."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from util.errors import DataError

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START, _PNG_GREY, _PNG_PALETTE = b"\x89PNG\r\n\x1a\n", 0, 3
_INDEX_MODES = {"P", "L", "1"}
"""Pillow's modes whose pixels are one byte of index: palette, grey, bilevel."""


def read_image(path: str | Path) -> np.ndarray:
    """Read a photograph as RGB, uint8 [H,W,3].

    Raises:
        DataError: the file is missing, empty, truncated or no image.
    """
    data = _read_bytes(path, "image")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise DataError(f"{path}: the image is corrupt or truncated; fetch or export it again")
    if data.startswith(_JPEG_START) and not data.rstrip(b"\0").endswith(_JPEG_END):
        _require_complete(path)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)


def read_mask(path: str | Path) -> np.ndarray:
    """Read a mask of class indices, uint8 [H,W].

    A palette PNG gives its indices (decoded to grey, class 1 of VOC would turn into 38), a grey PNG its
    values, which is how the lists of the BAM family ship theirs. Grey values may be stored in 16 bits, or in
    three equal channels.

    Raises:
        DataError: the file is missing, truncated, no image, or not an image of indices.
    """
    data = _read_bytes(path, "mask")
    plain = _plain_png(data)
    if plain is not None:
        return plain
    try:
        with Image.open(io.BytesIO(data)) as mask:
            indices = np.asarray(mask) if mask.mode in _INDEX_MODES else _wide_indices(mask)
            if indices is None:
                raise DataError(
                    f"{path}: the mask has mode {mask.mode}, but one 8-bit class index per pixel is needed; "
                    "save it as a palette or grey PNG"
                )
            return indices.astype(np.uint8, copy=mask.mode == "1")
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise DataError(
            f"{path}: the mask is corrupt or truncated ({_one_line(error)}); export it again"
        ) from None


def _wide_indices(mask: Image.Image) -> np.ndarray | None:
    """Return the indices of a mask that stores them in 16 or 32 bits or three times over, if it does so."""
    values = np.asarray(mask)
    if mask.mode in ("RGB", "RGBA") and (values[..., :3] == values[..., :1]).all():
        return values[..., 0]
    if mask.mode.startswith("I") and values.min(initial=0) >= 0 and values.max(initial=0) <= 255:
        return values
    return None


def _plain_png(data: bytes) -> np.ndarray | None:
    """Decode an 8-bit PNG of one channel with unfiltered rows, as palette masks nearly always are stored.

    This takes half of Pillow's time. Anything else, damage included, gives None and is left to Pillow.
    """
    if not data.startswith(_PNG_START):
        return None
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29].ljust(13))
    if depth != 8 or colour not in (_PNG_GREY, _PNG_PALETTE) or interlace:
        return None
    position, parts = len(_PNG_START), []
    while position + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        if kind == b"IDAT":
            parts.append(data[position + 8 : position + 8 + length])
        position += length + 12
    try:
        rows = np.frombuffer(zlib.decompress(b"".join(parts)), np.uint8)
    except zlib.error:
        return None
    if rows.size != height * (width + 1):
        return None
    rows = rows.reshape(height, width + 1)
    return None if rows[:, 0].any() else np.ascontiguousarray(rows[:, 1:])


def check_same_size(
    image: np.ndarray, mask: np.ndarray, image_path: str | Path, mask_path: str | Path
) -> None:
    """Raise DataError unless the mask [H,W] lies exactly on the image [H,W,3]."""
    if image.shape[:2] != mask.shape:
        raise DataError(
            f"{mask_path}: the mask is {mask.shape[1]}x{mask.shape[0]}, but its image {image_path} is "
            f"{image.shape[1]}x{image.shape[0]}; both must have the same size"
        )


def _read_bytes(path: str | Path, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: the {what} is missing; check the image list and the data root") from None
    except OSError as error:
        raise DataError(f"{path}: the {what} cannot be read ({error.strerror})") from None


def _require_complete(path: str | Path) -> None:
    """Raise DataError if a JPEG without an end mark is cut off: older OpenCV fills the rest with grey."""
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path}: the image is truncated ({_one_line(error)}); fetch it again") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).replace(str(Path.cwd()), ".")
