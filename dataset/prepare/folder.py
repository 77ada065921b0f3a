"""Images and masks of one's own, brought into VOC's layout with lists, class names and folds."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from dataset.lists import IMAGE_FOLDER
from dataset.lists import IMAGE_SUFFIXES as READ_AS_THEY_ARE
from dataset.mask import check_same_size, read_image, read_mask
from dataset.prepare.files import place, put, write_mask
from dataset.prepare.fss1000 import read_binary
from dataset.prepare.own_layout import IMAGE_FOLDERS, OwnLayout, Picture
from dataset.prepare.own_layout import IMAGE_SUFFIXES as IMAGE_FILES
from dataset.prepare.parallel import work
from dataset.split import BACKGROUND, VOID, read_class_names
from util.errors import DataError

MASKS = "SegmentationClass"


@dataclass(frozen=True)
class Placed:
    """A picture in its place: its line in a list, the ids that its mask shows, or what was wrong with it."""

    name: str
    line: str = ""
    labels: tuple[int, ...] = ()
    wrong: str = ""


def told_apart(layout: OwnLayout, given: Path | None) -> OwnLayout:
    """Return the layout, taking index masks of nothing but 0 and 255 for binary masks of one class.

    That is how tools save the outline of a single object; read as ids, it would be void. The class is the one
    that is named, or ``object``.
    """
    if layout.binary or not all(_is_black_and_white(picture.masks[""]) for picture in layout.pictures):
        return layout
    names = class_names(layout, given)
    if names is not None and len(names) != 2:
        return layout
    name = "object" if names is None else names[1]
    pictures = tuple(replace(picture, masks={name: picture.masks[""]}) for picture in layout.pictures)
    return replace(layout, pictures=pictures, class_folders=(name,))


def _is_black_and_white(path: Path) -> bool:
    try:
        return set(np.unique(read_mask(path)).tolist()) <= {BACKGROUND, VOID}
    except DataError:
        return False  # placing the picture tells what is wrong


def class_names(layout: OwnLayout, given: Path | None) -> tuple[str, ...] | None:
    """Return the class names, "background" first: those given, of ``classes.txt``, or of the mask folders.

    None where masks are index masks and nothing names their classes.

    Raises:
        DataError: the list does not name a class that has masks.
    """
    own = layout.source / "classes.txt"
    path = given if given is not None else own if own.is_file() else None
    names = None if path is None else read_class_names(path)
    if not layout.binary:
        return names
    if names is None:
        return ("background", *layout.class_folders)
    unknown = [name for name in layout.class_folders if name not in names]
    if unknown:
        raise DataError(
            f"{path}: does not name {', '.join(unknown[:5])}, which {layout.source} has masks of; add the "
            "names "
            "or rename the masks"
        )
    return names


def place_pictures(
    layout: OwnLayout,
    root: Path,
    names: Sequence[str] | None,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> list[Placed]:
    """Put every image and one index mask of it below ``root``.

    Raises:
        DataError: pictures that cannot be used, all of them named.
    """
    ids = {name: i for i, name in enumerate(names or ())}
    move = partial(_place_picture, root, ids, len(names) - 1 if names else None)
    placed = list(work(move, layout.pictures, title="placing images", workers=workers, progress=progress))
    wrong = [picture.wrong for picture in placed if picture.wrong]
    if wrong:
        more = f" (and {len(wrong) - 5} more)" if len(wrong) > 5 else ""
        raise DataError(f"{len(wrong)} pictures cannot be used: {'; '.join(wrong[:5])}{more}")
    return placed


def _place_picture(root: Path, ids: Mapping[str, int], classes: int | None, picture: Picture) -> Placed:
    """Place one picture; what is wrong with it is told, so that one run tells it of all pictures."""
    suffix = picture.image.suffix.lower()
    kept = suffix in READ_AS_THEY_ARE
    to_image = f"{IMAGE_FOLDER}/{picture.name}{suffix if kept else '.png'}"
    to_mask = f"{MASKS}/{picture.name}.png"
    try:
        image = read_image(picture.image)
        mask = _index_mask(picture, ids)
        check_same_size(image, mask, picture.image, next(iter(picture.masks.values())))
        labels = tuple(int(label) for label in np.unique(mask))
        outside = [label for label in labels if classes is not None and classes < label != VOID]
        if outside:
            raise DataError(
                f"{next(iter(picture.masks.values()))}: label {outside[0]} lies outside the classes "
                f"0..{classes} "
                f"and {VOID}; add names to classes.txt, or export masks as class indices"
            )
    except DataError as failure:
        return Placed(picture.name, wrong=str(failure))
    if kept:
        place(picture.image, root / to_image)
    else:
        _write_image(root / to_image, image)
    plain = picture.masks.get("")
    if plain is not None and plain.suffix.lower() == ".png":
        place(plain, root / to_mask)
    else:
        write_mask(root / to_mask, mask)
    return Placed(picture.name, f"{to_image} {to_mask}", labels)


def _write_image(path: Path, image: np.ndarray) -> None:
    from PIL import Image

    put(path, lambda part: Image.fromarray(image).save(part, format="PNG"))


def _index_mask(picture: Picture, ids: Mapping[str, int]) -> np.ndarray:
    """Return the index mask, painted from binary masks where there are such: smaller objects on top."""
    if "" in picture.masks:
        return read_mask(picture.masks[""])
    layers = [(read_binary(path), ids[name], path) for name, path in picture.masks.items()]
    out = np.zeros_like(layers[0][0])
    for binary, class_id, path in sorted(layers, key=lambda layer: (-int(layer[0].sum()), layer[1])):
        if binary.shape != out.shape:
            raise DataError(
                f"{path}: the mask is of another size than the image's other masks; export it again"
            )
        out[binary == 1] = class_id
    return out


def given_lists(source: Path, known: Container[str]) -> dict[str, list[str]] | None:
    """Return the pictures of a folder's own ``train.txt`` and ``val.txt`` (or ``test.txt``), if it has both.

    Lines are ids, file names, or image and mask, as in ``dataset.lists``; ids may hold blanks.

    Raises:
        DataError: a line names no picture in ``known``.
    """
    for folder in (source / "ImageSets" / "Segmentation", source):
        for second in ("val", "test"):
            paths = {"train": folder / "train.txt", "val": folder / f"{second}.txt"}
            if all(path.is_file() for path in paths.values()):
                return {part: _read_list(path, known) for part, path in paths.items()}
    return None


def _read_list(path: Path, known: Container[str]) -> list[str]:
    names = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        readings = [_name(line), _name(line.split()[0])]
        name = next((name for name in readings if name in known), None)
        if name is None:
            raise DataError(f"{path}:{number}: {readings[0]} has no image with a mask; correct the list")
        names.append(name)
    return names


def _name(word: str) -> str:
    """Return what a picture is called that a list names by id, file name or path."""
    path = PurePosixPath(word.strip())
    if path.suffix.lower() in IMAGE_FILES:
        path = path.with_suffix("")
    parts = path.parts[1:] if path.parts[0] in IMAGE_FOLDERS else path.parts
    return "_".join("/".join(parts).split())


def draw_lists(placed: Sequence[Placed], share: float, seed: int) -> dict[str, list[str]]:
    """Divide pictures into train and val so that every class, rarest first, has its share in both.

    Raises:
        DataError: too few pictures.
    """
    if len(placed) < 2:
        raise DataError(f"{len(placed)} picture cannot be divided into training and test; give at least 2")
    shuffled = random.Random(seed).sample(list(placed), len(placed))
    showing = defaultdict(list)
    for picture in shuffled:
        for label in picture.labels or (0,):
            showing[label].append(picture)
    part: dict[str, str] = {}
    for label in sorted(showing, key=lambda c: (len(showing[c]), c)):
        pictures = showing[label]
        wanted = max(1, round(share * len(pictures))) if len(pictures) > 1 else 0
        chosen = sum(part.get(picture.name) == "val" for picture in pictures)
        for picture in pictures:
            if picture.name not in part:
                part[picture.name] = "val" if chosen < wanted else "train"
                chosen += part[picture.name] == "val"
    return {which: [p.name for p in placed if part[p.name] == which] for which in ("train", "val")}
