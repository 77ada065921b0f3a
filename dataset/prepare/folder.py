"""Placing a user's own images and masks in VOC's layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fewseg.dataset.labels import VOID
from fewseg.dataset.lists.image_lists import IMAGE_FOLDER
from fewseg.dataset.lists.image_lists import IMAGE_SUFFIXES as READ_AS_THEY_ARE
from fewseg.dataset.prepare.files import place, write_mask, write_png
from fewseg.dataset.prepare.made import MadeFiles
from fewseg.dataset.prepare.own_layout import OwnLayout, Picture
from fewseg.dataset.reading.mask import check_same_size, open_pair, read_image
from fewseg.dataset.reading.own_mask import MaskKind, kind_of, read_binary
from fewseg.util.errors import DataError
from fewseg.util.parallel import parallel_map

MASKS = "SegmentationClass"


@dataclass(frozen=True)
class Placed:
    """A placed picture: its line in a list and the ids that its mask shows, or what was wrong with it."""

    name: str
    line: str = ""
    labels: tuple[int, ...] = ()
    wrong: str = ""


def place_pictures(
    layout: OwnLayout,
    root: Path,
    names: Sequence[str] | None,
    made: MadeFiles,
    workers: int | None = None,
) -> list[Placed]:
    """Place every image and its index mask below ``root``.

    Raises:
        DataError: some pictures cannot be used, or a file was changed since it was made.
    """
    made.begin({path: source for picture in layout.pictures for path, source in _targets(picture)})
    ids = {name: i for i, name in enumerate(names or ())}
    move = partial(_place_picture, root, ids, len(names) - 1 if names else None)
    placed = list(parallel_map(move, layout.pictures, title="placing images", workers=workers))
    wrong = [picture.wrong for picture in placed if picture.wrong]
    if wrong:
        more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
        raise DataError(f"{len(wrong)} pictures cannot be used: {'; '.join(wrong[:5])}{more}")
    return placed


def _place_picture(root: Path, ids: Mapping[str, int], classes: int | None, picture: Picture) -> Placed:
    """Place one picture; a problem is returned, not raised, so that one run reports those of all pictures."""
    (to_image, same_image), (to_mask, same_mask) = _targets(picture)
    try:
        image, mask = _read(picture, ids)
        labels = tuple(int(label) for label in np.unique(mask))
        outside = [label for label in labels if classes is not None and classes < label != VOID]
        if outside:
            raise DataError(
                f"{next(iter(picture.masks.values()))}: label {outside[0]} lies outside the classes "
                f"0..{classes} and {VOID}; add names to classes.txt, or export masks as class indices "
                "(palette masks decoded to grey look like this)"
            )
    except DataError as failure:
        return Placed(picture.name, wrong=str(failure))
    if same_image is not None:
        place(same_image, root / to_image)
    else:
        write_png(root / to_image, image)
    if same_mask is not None:
        place(same_mask, root / to_mask)
    else:
        write_mask(root / to_mask, mask)
    return Placed(picture.name, f"{to_image} {to_mask}", labels)


def _targets(picture: Picture) -> tuple[tuple[str, Path | None], tuple[str, Path | None]]:
    """Return the paths of image and mask below the root, each with the file to link, None if converted."""
    suffix = picture.image.suffix.lower()
    same_image = picture.image if suffix in READ_AS_THEY_ARE else None
    plain = picture.masks.get("")
    same_mask = plain if plain is not None and plain.suffix.lower() == ".png" else None
    to_image = f"{IMAGE_FOLDER}/{picture.name}{suffix if same_image else '.png'}"
    return (to_image, same_image), (f"{MASKS}/{picture.name}.png", same_mask)


def _read(picture: Picture, ids: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the image and its index mask, which is painted from binary masks if the picture has these."""
    first = next(iter(picture.masks.values()))
    if "" not in picture.masks:
        image, mask = read_image(picture.image), _painted(picture, ids)
        check_same_size(image, mask, picture.image, first)
        return image, mask
    image_file, mask_file = open_pair(picture.image, first)
    image, mask = image_file.photograph(), mask_file.indices()
    check_same_size(image, mask, picture.image, first)
    if kind_of(mask, palette=mask_file.mode == "P") is MaskKind.SOFT:
        raise DataError(
            f"{first}: a black and white mask with soft edges among masks of class ids; save it as class ids "
            "too, or give every class its folder of masks"
        )
    return image, mask


def _painted(picture: Picture, ids: Mapping[str, int]) -> np.ndarray:
    """Combine binary masks into an index mask, with smaller objects on top."""
    layers = [(read_binary(path), ids[name], path) for name, path in picture.masks.items()]
    out = np.zeros_like(layers[0][0])
    for binary, class_id, path in sorted(layers, key=lambda layer: (-int(layer[0].sum()), layer[1])):
        if binary.shape != out.shape:
            raise DataError(
                f"{path}: the mask is of another size than the image's other masks; export it again"
            )
        out[binary == 1] = class_id
    return out
