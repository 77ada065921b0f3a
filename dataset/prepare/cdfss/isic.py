"""ISIC 2018: pictures of skin lesions of three kinds; ``data/isic/class_id.csv`` of PATNet names the kind."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from fewseg.dataset.prepare.cdfss.found import complete, files_below, folders_named
from fewseg.dataset.prepare.class_pairs import Pairs, as_word
from fewseg.util.errors import DataError
from fewseg.util.files import read_text
from fewseg.util.log import get_log

INPUT, TRUTH = "isic2018_task1-2_training_input", "isic2018_task1_training_groundtruth"
_HEADERS = ("id", "image", "image_id")


def find_lesions(
    sources: Sequence[Path], table: Mapping[str, str] | None = None, *, subset: bool = False
) -> Pairs:
    """Return the pictures and masks by the kind of lesion.

    Args:
        sources: folders in which the two folders of the challenge are.
        table: image -> class; None: pictures lie in the folders 1, 2 and 3 of their class.
        subset: leave out pictures without a class or a mask, and entries without a picture.

    Raises:
        DataError: a folder is missing, or pictures, masks and table do not fit together.
    """
    inputs, truths = folders_named(sources, INPUT), folders_named(sources, TRUTH)
    for name, found in (("ISIC2018_Task1-2_Training_Input", inputs), (TRUTH, truths)):
        if not found:
            raise DataError(
                f"{sources[0]}: has no folder {name}; give the folder that holds both of ISIC 2018"
            )
    pictures = [picture for folder in inputs for picture in files_below(folder, "*.jpg")]
    if table is None:
        flat = next((picture for picture in pictures if picture.parent in inputs), None)
        if flat is not None or not pictures:
            raise DataError(
                f"{flat or inputs[0]}: the class of a picture is unknown; give the table of image and class "
                "by --classes (data/isic/class_id.csv of https://github.com/slei109/PATNet)"
            )
        table = {picture.stem: f"lesion_{as_word(picture.parent.name)}" for picture in pictures}
    _compare([picture.stem for picture in pictures], table, sources[0], subset)
    pairs: Pairs = {name: [] for name in sorted(set(table.values()))}
    for picture in pictures:
        if picture.stem in table:
            masks = [truth / f"{picture.stem}_segmentation.png" for truth in truths]
            pairs[table[picture.stem]].append((picture, next((m for m in masks if m.is_file()), masks[0])))
    return complete({name: found for name, found in pairs.items() if found}, "ISIC 2018", subset=subset)


def _compare(pictures: Sequence[str], table: Mapping[str, str], source: Path, subset: bool) -> None:
    """Compare the pictures with the table of classes."""
    twice = len(pictures) - len(set(pictures))
    if twice:
        raise DataError(f"{source}: {twice} pictures are there twice; give a folder with one copy")
    unknown, absent = sorted(set(pictures) - set(table)), sorted(set(table) - set(pictures))
    for names, lack in (
        (unknown, "pictures have no class in the table"),
        (absent, "entries have no picture"),
    ):
        if names and (not subset or len(unknown) == len(pictures)):
            raise DataError(
                f"{source}: {len(names)} {lack}, first {names[0]}; give the table of these pictures by "
                "--classes, or accept a part of the data set by --subset"
            )
        if names:
            get_log("prepare").warning("%s: %d %s, first %s: left out", source, len(names), lack, names[0])


def read_table(path: Path) -> dict[str, str]:
    """Read the table of classes: lines ``image,class``, below a header or not.

    Raises:
        DataError: it cannot be read, a line has another form, or an image has two classes.
    """
    table: dict[str, str] = {}
    for number, row in enumerate(csv.reader(read_text(path, "the table of classes").splitlines()), 1):
        fields = [as_word(field) for field in row]
        if not any(fields) or (number == 1 and fields[0].lower() in _HEADERS):
            continue
        if len(fields) != 2 or not all(fields):
            raise DataError(
                f"{path}:{number}: expected image,class, found {len(fields)} fields; correct the line"
            )
        image, name = fields[0].removesuffix(".jpg"), fields[1]
        if "/" in name or name.startswith("."):
            raise DataError(f"{path}:{number}: {name} cannot be the name of a class folder; correct the line")
        if table.setdefault(image, name) != name:
            raise DataError(f"{path}:{number}: {image} is {table[image]} already; keep one of the lines")
    if not table:
        raise DataError(f"{path}: the table of classes is empty; write lines image,class")
    return table
