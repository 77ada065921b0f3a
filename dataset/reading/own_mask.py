"""Recognise the kind of a user's mask: class indices, black and white, or black and white with soft edges.

Masks of data sets hold class indices, which ``dataset.reading.mask`` reads. Drawing programs and labelling
tools save black and white masks, with grey values along an outline that they smooth.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from fewseg.dataset.labels import BACKGROUND, VOID
from fewseg.dataset.reading.mask import ImageFile, check_same_size, label_counts, open_pair

THRESHOLD = 128
"""The smallest grey value of the object in a mask with soft edges."""

FEW_PIXELS, FEW_SHARE = 64, 0.001
"""An object of fewer pixels, or of a smaller share of the image, is reported as too small for a network."""

NEARLY_ALL = 0.95
"""An object of a larger share of the image is reported: black and white may be exchanged."""

_END = 16
"""Number of grey values at either end that count as black or white, because of noise and compression."""

_MANY = 64
"""More different values than this between black and white do not occur in a mask of class indices."""

_FLAT = 1 / 3
"""From this share of grey pixels in blocks of one value on, the grey values are areas, hence classes."""


class MaskKind(Enum):
    """The kinds of masks, with their descriptions for the log."""

    INDICES = "class indices, 255 being void"
    ZERO_ONE = "a binary mask of 0 and 1, the object being 1"
    ZERO_255 = "a binary mask of 0 and 255, the object being 255"
    SOFT = f"a binary mask with soft edges, the object being every value from {THRESHOLD} on"


@dataclass(frozen=True)
class OwnMask:
    """A mask converted to class indices.

    Attributes:
        path: path of its file.
        kind: kind of its stored values.
        indices: 0 background, 255 void, else the class, which is 1 in a binary mask; uint8 [H,W].
        counts: number of pixels of every index, int64 [256].
    """

    path: Path
    kind: MaskKind
    indices: np.ndarray
    counts: np.ndarray

    @property
    def classes(self) -> tuple[int, ...]:
        """Ids of the classes that it shows, ascending."""
        return tuple(i for i in np.flatnonzero(self.counts).tolist() if i not in (BACKGROUND, VOID))

    def doubt(self, class_id: int) -> str:
        """Return in words why ``class_id`` may not be the object that was meant, or ""."""
        size, void = int(self.counts[class_id]), int(self.counts[VOID])
        pixels = self.indices.size
        if size < max(FEW_PIXELS, FEW_SHARE * pixels):
            return f"the object has only {size} of {pixels} pixels"
        if size > NEARLY_ALL * pixels:
            return "the object is nearly all of the image; perhaps object and background are exchanged"
        if void > size:
            return "more of it is void, which is left out, than object"
        return ""

    def shares(self, class_id: int) -> str:
        """Return the shares of object and void in the image, in words."""
        object_share, void = (self.counts[i] / self.indices.size for i in (class_id, VOID))
        return f"{object_share:.1%} object, {void:.1%} void"


def read_own_mask(path: str | Path) -> OwnMask:
    """Read a mask of any kind.

    Raises:
        DataError: see ``dataset.reading.mask.read_mask``.
    """
    return _own_mask(ImageFile.open(path, "mask"))


def read_binary(path: str | Path) -> np.ndarray:
    """Read a mask that is known to show one object, as 0 and 1, uint8 [H,W].

    Its values may be 0 and 1, possibly with 255 for void, or black and white, or black and a colour. Values
    along soft edges are thresholded at half the maximum.

    Raises:
        DataError: see ``dataset.reading.mask.read_mask``.
    """
    values = ImageFile.open(path, "mask").brightness()
    with_void = set(np.unique(values).tolist()) == {BACKGROUND, 1, VOID}
    return (values == 1 if with_void else values > values.max(initial=0) // 2).astype(np.uint8)


def read_own_pair(image_path: str | Path, mask_path: str | Path) -> tuple[np.ndarray, OwnMask]:
    """Read a photograph, RGB uint8 [H,W,3], and its mask of any kind.

    Raises:
        DataError: see ``dataset.reading.mask.read_pair``.
    """
    image_file, mask_file = open_pair(image_path, mask_path)
    image, mask = image_file.photograph(), _own_mask(mask_file)
    check_same_size(image, mask.indices, image_path, mask_path)
    return image, mask


def _own_mask(file: ImageFile) -> OwnMask:
    values = file.indices()
    if file.mode == "P" and set(np.unique(values)) == {0, 1}:
        bright = file.brightness()
        if set(np.unique(bright)) == {0, 255}:  # black and white in a palette, in either order
            values = bright
    kind = kind_of(values, palette=file.mode == "P")
    indices = to_indices(values, kind)
    return OwnMask(file.path, kind, indices, label_counts(indices))


def kind_of(values: np.ndarray, palette: bool = False) -> MaskKind:
    """Return the kind of a mask.

    Values between 0 and 255 are soft edges, not classes, if they are both dark and light, if black and white
    are the two peaks of the histogram, and if no value between them covers an area, because edges are lines.

    Args:
        values: the stored values, uint8 [H,W].
        palette: whether they are indices of a palette, which are never grey values.
    """
    counts = label_counts(values)
    values_present = set(np.flatnonzero(counts).tolist())
    if values_present <= {0, 1} and 1 in values_present:
        return MaskKind.ZERO_ONE
    if values_present <= {BACKGROUND, VOID}:
        return MaskKind.ZERO_255
    if palette or not _peaks_at_both_ends(counts):
        return MaskKind.INDICES
    many = np.count_nonzero(counts[1:VOID]) > _MANY
    return MaskKind.SOFT if many or _flat_share(values) < _FLAT else MaskKind.INDICES


def to_indices(values: np.ndarray, kind: MaskKind) -> np.ndarray:
    """Convert the values of a mask to class indices, uint8 [H,W]; the object of a binary mask becomes 1."""
    if kind in (MaskKind.ZERO_255, MaskKind.SOFT):
        return (values >= THRESHOLD).astype(np.uint8)
    return values


def _peaks_at_both_ends(counts: np.ndarray) -> bool:
    """Whether grey values are on both sides of the threshold, and all rarer than black and than white."""
    dark, light = counts[1:THRESHOLD].any(), counts[THRESHOLD:VOID].any()
    between = counts[_END:-_END].max()
    return bool(dark and light and min(counts[:_END].sum(), counts[-_END:].sum()) > between)


def _flat_share(values: np.ndarray) -> float:
    """Return the share of grey pixels that are the top left corner of a 2x2 block of one value."""
    corner = values[:-1, :-1]
    between = (corner >= _END) & (corner < 256 - _END)
    flat = (corner == values[1:, :-1]) & (corner == values[:-1, 1:]) & (corner == values[1:, 1:])
    return float((flat & between).sum() / max(between.sum(), 1))
