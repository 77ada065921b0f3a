"""The class names of a user's own images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fewseg.dataset.classes.own_names import CLASSES_FILE, read_class_names
from fewseg.dataset.prepare.own_layout import OwnLayout, Picture, part_of
from fewseg.dataset.reading.own_mask import MaskKind, read_own_mask
from fewseg.util.errors import DataError
from fewseg.util.log import get_log

OBJECT = "object"
"""The name of a single class without a name."""


def recognise_binary_masks(layout: OwnLayout, class_list: Path | None) -> OwnLayout:
    """Return the layout, in which masks of only 0 and 255, or with soft edges, are marked as binary masks.

    Many tools save the mask of a single object in this way; read as class ids, the object would be void. If
    the pictures lie in several folders, these are named after the classes. Otherwise there is one class, the
    one that the list names, or ``object``.

    Raises:
        DataError: there is one such mask per image, but the list names several classes.
    """
    if layout.binary:
        return layout
    soft = 0
    for picture in layout.pictures:
        kind = _kind_of(picture.masks[""])
        if kind not in (MaskKind.ZERO_255, MaskKind.SOFT):
            return layout
        soft += kind is MaskKind.SOFT
    names = class_names(layout, class_list)
    folders = {_folder_of(picture) for picture in layout.pictures}
    if len(folders) > 1 and "" not in folders and (names is None or folders <= set(names)):
        called = {picture.name: _folder_of(picture) for picture in layout.pictures}
    elif names is None or len(names) == 2:
        called = dict.fromkeys((picture.name for picture in layout.pictures), names[1] if names else OBJECT)
    else:
        raise DataError(
            f"{layout.source}: every mask is black and white, so it shows one class, but classes.txt names "
            f"{len(names) - 1}; put the masks of every class into a folder of its name, or name one class"
        )
    if soft:
        get_log("prepare").warning("%d of %d masks are %s", soft, len(layout.pictures), MaskKind.SOFT.value)
    pictures = tuple(replace(p, masks={called[p.name]: p.masks[""]}) for p in layout.pictures)
    return replace(layout, pictures=pictures, class_folders=tuple(sorted(set(called.values()))))


def _folder_of(picture: Picture) -> str:
    """Return the name of a picture's folder, ignoring folders of training and test pictures."""
    parts = picture.name.split("/")[1 if part_of(picture.name) else 0 : -1]
    return picture.image.parent.name if parts else ""  # its name may hold blanks


def _kind_of(path: Path) -> MaskKind | None:
    try:
        return read_own_mask(path).kind
    except DataError:
        return None  # placing the picture raises the error


def class_names(layout: OwnLayout, class_list: Path | None) -> tuple[str, ...] | None:
    """Return the class names, "background" first, from the list, ``classes.txt`` or the mask folders.

    They are None where masks are index masks and nothing names their classes.

    Raises:
        DataError: the list does not name a class that has masks.
    """
    in_source = layout.source / CLASSES_FILE
    path = class_list or (in_source if in_source.is_file() else None)
    names = None if path is None else read_class_names(path)
    if not layout.binary:
        return names
    if names is None:
        return ("background", *layout.class_folders)
    unknown = [name for name in layout.class_folders if name not in names]
    if unknown:
        raise DataError(
            f"{path}: does not name {', '.join(unknown[:5])}, which {layout.source} has masks of; add the "
            "names or rename the masks"
        )
    return names


def warn_of_moved_names(path: Path, names: tuple[str, ...]) -> None:
    """Warn if names have other ids than in the list that an earlier preparation left at ``path``, if any."""
    try:
        earlier = read_class_names(path)
    except DataError:
        return
    moved = [name for i, name in enumerate(earlier) if name in names and names[i : i + 1] != (name,)]
    if moved:
        get_log("prepare").warning(
            "%s: %s was class %d and is now class %d%s; masks hold ids, so if only a line of classes.txt was "
            "taken off or added, put it back, or write every name behind its id",
            *(path, moved[0], earlier.index(moved[0]), names.index(moved[0])),
            f" ({len(moved) - 1} more names moved)" if len(moved) > 1 else "",
        )
