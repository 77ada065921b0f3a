"""FSS-1000: a folder per class, ten images each, one class per image; 520 / 240 / 240 classes.

The authors published the images (only on a personal drive, so they are not downloaded here) and the test
classes. Validation classes are those of a published list, or drawn by a seed from the other 760.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from fewseg.dataset.lists.image_lists import IMAGE_SUFFIXES
from fewseg.dataset.prepare.class_pairs import Pairs, as_word
from fewseg.dataset.prepare.download import Archive
from fewseg.dataset.prepare.files import read_lines
from fewseg.util.errors import DataError

TEST_LIST = Archive(
    "fss_test_set.txt",
    (
        "https://raw.githubusercontent.com/HKUSTCV/FSS-1000/master/fss_test_set.txt",
        "https://cdn.jsdelivr.net/gh/HKUSTCV/FSS-1000@master/fss_test_set.txt",
    ),
)
COUNTS = {"train": 520, "val": 240, "test": 240}
DEPTH = 3
"""Number of folder levels below the source within which class folders are searched."""


def find_classes(source: Path) -> Pairs:
    """Return the pairs of image and mask by class name.

    Class folders hold ``<n>.jpg`` and ``<n>.png`` side by side, or in ``image/`` and ``label/``. Blanks in
    the name of a class become underscores, because lists are split at blanks.

    Raises:
        DataError: there are no class folders.
    """
    folders = [source]
    for _ in range(DEPTH + 1):
        classes = {as_word(folder.name): pairs for folder in folders if (pairs := _pairs(folder))}
        if classes:
            return dict(sorted(classes.items()))
        folders = sorted(child for folder in folders for child in folder.iterdir() if child.is_dir())
    raise DataError(
        f"{source}: no class folders with images <n>.jpg and masks <n>.png; give the folder that holds them"
    )


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    images, masks = folder, folder
    for image_folder, mask_folder in (("image", "label"), ("images", "masks")):
        if (folder / image_folder).is_dir() and (folder / mask_folder).is_dir():
            images, masks = folder / image_folder, folder / mask_folder
    suffixes = [s for s in IMAGE_SUFFIXES if images != masks or s != ".png"]
    image_of = {path.stem: path for path in images.iterdir() if path.suffix.lower() in suffixes}
    order = sorted(image_of, key=lambda stem: (len(stem), stem))  # 2 before 10
    pairs = ((image_of[stem], masks / f"{stem}.png") for stem in order)
    return [(image_path, mask_path) for image_path, mask_path in pairs if mask_path.is_file()]


def split_classes(
    classes: Sequence[str],
    test: Sequence[str],
    validation: Sequence[str] | None = None,
    *,
    seed: int = 0,
    subset: bool = False,
) -> dict[str, list[str]]:
    """Return the classes of train, val and test.

    Args:
        classes: all classes that have a folder.
        test: the official list.
        validation: a published list; None: as many as there are test classes, drawn by ``seed``.
        subset: accept any number of classes, and lists that name classes without a folder.

    Raises:
        DataError: a listed class has no folder or is in two lists, or a count is not the official one.
    """
    there = set(classes)
    parts = {"test": list(test)} | ({} if validation is None else {"val": list(validation)})
    for part, names in parts.items():
        absent = sorted(set(names) - there)
        if absent and not subset:
            raise DataError(
                f"fss1000: {len(absent)} {part} classes have no folder, first {absent[0]}; fetch the "
                "images again, or accept a part of the data set by --subset"
            )
        parts[part] = sorted(set(names) & there)
    rest = sorted(there - set(parts["test"]))
    if "val" not in parts:
        count = COUNTS["val"] if not subset else len(rest) // 4
        parts["val"] = sorted(random.Random(seed).sample(rest, min(count, len(rest))))
    both = set(parts["test"]) & set(parts["val"])
    if both:
        raise DataError(f"fss1000: {min(both)} is a test class and a validation class; correct the lists")
    parts["train"] = sorted(set(rest) - set(parts["val"]))
    for part, total in COUNTS.items():
        if not subset and len(parts[part]) != total:
            raise DataError(
                f"fss1000: {len(parts[part])} {part} classes instead of {total}; the copy is not complete: "
                "fetch it again, or accept a part of the data set by --subset"
            )
    return {part: parts[part] for part in COUNTS}


def read_classes(path: Path) -> list[str]:
    """Read a list of class names, one per line."""
    return [as_word(line) for line in read_lines(path, "the list of classes")]
