"""PASCAL-5i: VOC 2012 with the masks of the Semantic Boundaries Dataset (SBD).

A mask is VOC's if VOC has one, else SBD's. The lists are made from the official ones:

    train     VOC's segmentation train                                        1,464
    val       VOC's segmentation val, the test images                         1,449
    merged    the images of SBD that are in VOC's detection train, then the
              rest of VOC's segmentation train (PFENet, BAM)                  5,953
    trainaug  all images of SBD and VOC's train, without val (HSNet, PANet)  10,582
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from fewseg.dataset.lists.image_lists import OBJECT_FOLDER
from fewseg.dataset.prepare.download import Archive
from fewseg.dataset.prepare.files import place, read_lines, write_mask
from fewseg.dataset.reading.mask import read_mask
from fewseg.util.errors import DataError
from fewseg.util.files import require_inside
from fewseg.util.parallel import parallel_map

VOC = Archive(
    "VOCtrainval_11-May-2012.tar",
    (
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    ),
    "md5:6cd6e144f989b92b3379bac3b3de84fd",
)
SBD = Archive(
    "benchmark.tgz",
    (
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
        "http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    ),
    "md5:82b4d87ceb2ed10f6038a1cba92111cb",
)
MASKS = "SegmentationClassAug"
VOC_FOLDERS = ("JPEGImages", "SegmentationClass", OBJECT_FOLDER, MASKS, "ImageSets")
_OTHER_YEAR = re.compile(r"VOC(?!2012$)\d{4}")

COUNTS = {"train": 1464, "val": 1449, "merged": 5953, "trainaug": 10582}
SBD_COUNT = 11355
FILES = {
    "train": "train.txt",
    "val": "val.txt",
    "merged": "voc_sbd_merge_noduplicate.txt",
    "trainaug": "trainaug.txt",
}
"""The file names of the lists, as in published configs where these have the list."""


@dataclass(frozen=True)
class Sources:
    """The folders of the parts of the data set.

    Attributes:
        voc: the folder with JPEGImages, SegmentationClass and ImageSets.
        sbd: the folder with cls (``.mat`` files), or None.
        masks: a ready SegmentationClassAug, or None.
    """

    voc: Path
    sbd: Path | None = None
    masks: Path | None = None


def choose_voc(name: PurePosixPath) -> PurePosixPath | None:
    """Select photographs, masks and lists from VOC's archive, or from an archive of a part of it."""
    parts = name.parts
    start = next((i for i, part in enumerate(parts) if part in VOC_FOLDERS), None)
    if start is None or any(_OTHER_YEAR.fullmatch(part) for part in parts[:start]):
        return None
    inner = PurePosixPath(*parts[start:])
    wanted = inner.parts[0] != "ImageSets" or inner.parts[1] in ("Segmentation", "Main")
    return inner if wanted and len(inner.parts) > 1 else None


def choose_sbd(name: PurePosixPath) -> PurePosixPath | None:
    """Select class masks and lists from SBD's archive."""
    parts = name.parts
    if "dataset" not in parts:
        return None
    inner = PurePosixPath(*parts[parts.index("dataset") + 1 :])
    return inner if inner.parts[:1] == ("cls",) or inner.suffix == ".txt" else None


def choose_masks(name: PurePosixPath) -> str | None:
    """Select the masks from an archive of masks with any folders."""
    return name.name if name.suffix == ".png" and not name.name.startswith(".") else None


def find_voc(path: Path) -> Path:
    """Return the folder of VOC 2012, which is ``path`` or a folder in it.

    Raises:
        DataError: there is none.
    """
    for below in ("", "VOC2012", "VOCdevkit/VOC2012", "VOCdevkit2012/VOC2012"):
        folder = path / below
        if (folder / "JPEGImages").is_dir() and (folder / "ImageSets" / "Segmentation").is_dir():
            return folder
    raise DataError(f"{path}: no VOC 2012 here; give the folder that holds JPEGImages and ImageSets")


def find_sbd(path: Path) -> Path:
    """Return SBD's folder of data, which is ``path`` or a folder in it.

    Raises:
        DataError: there is none.
    """
    for below in ("", "dataset", "benchmark_RELEASE/dataset"):
        if (path / below / "cls").is_dir():
            return path / below
    raise DataError(f"{path}: no SBD here; give the folder that holds cls/*.mat")


def make_lists(sources: Sources, subset: bool = False) -> dict[str, list[str]]:
    """Return the ids of every list.

    Args:
        subset: accept any part of the data set: no counts are checked. Without SBD and ready masks, unlisted
            images that have a mask belong to ``trainaug``, and ``merged`` equals ``train``; it also does so
            without detection lists.

    Raises:
        DataError: an official list is missing, or a count is not the official one.
    """
    sets = sources.voc / "ImageSets"
    train, val = (_ids(sets / "Segmentation" / f"{part}.txt") for part in ("train", "val"))
    annotated = _annotated(sources)
    if annotated is None:
        if not subset:
            raise DataError("pascal: neither SBD nor SegmentationClassAug is given; give --sbd or --masks")
        rest = sorted(_ids_with_mask(sources.voc) - set(train) - set(val))
        return {"train": train, "val": val, "merged": train, "trainaug": [*train, *rest]}
    extra = annotated - set(val)
    if not subset and sources.masks is None:
        _require("SBD", len(annotated), SBD_COUNT, sources.sbd)
    detection = sets / "Main" / "train.txt"
    candidates = [detection] if sources.sbd is None else [sources.sbd / "train_noval.txt", detection]
    training_list = next((path for path in candidates if path.is_file()), None)
    if training_list is None and not subset:
        raise DataError(
            f"{detection}: the list is missing; take ImageSets/Main from VOC's archive, or put SBD's "
            "train_noval.txt beside cls, or accept a part of the data set by --subset"
        )
    of_train = extra & set(train if training_list is None else _ids(training_list))
    lists = {
        "train": train,
        "val": val,
        "merged": [*sorted(of_train), *sorted(set(train) - of_train)],
        "trainaug": sorted(extra | set(train)),
    }
    if not subset:
        for name, ids in lists.items():
            _require(f"the list {name}", len(ids), COUNTS[name], sources.voc)
    return lists


def without_photograph(sources: Sources, lists: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the listed ids that have no photograph."""
    photographs = {path.stem for path in (sources.voc / "JPEGImages").glob("*.jpg")}
    return {name for ids in lists.values() for name in ids} - photographs


def _annotated(sources: Sources) -> set[str] | None:
    """Return the ids that SBD or the ready masks annotate; None without both."""
    if sources.sbd is not None:
        return {path.stem for path in (sources.sbd / "cls").glob("*.mat")}
    return None if sources.masks is None else {path.stem for path in sources.masks.glob("*.png")}


def _ids_with_mask(voc: Path) -> set[str]:
    return {path.stem for folder in ("SegmentationClass", MASKS) for path in (voc / folder).glob("*.png")}


def _require(what: str, count: int, official: int, where: Path | None) -> None:
    if count != official:
        raise DataError(
            f"{where}: {what} has {count} images instead of {official}; the copy is not complete: fetch it "
            "again, or accept a part of the data set by --subset"
        )


def _ids(path: Path) -> list[str]:
    lines = read_lines(path, remedy="; take it from VOC's archive")
    return [require_inside(line.split()[0], path) for line in lines]


def make_masks(sources: Sources, ids: Iterable[str], folder: Path, *, workers: int | None = None) -> int:
    """Write the masks of ``ids`` that are not in ``folder`` yet.

    Returns:
        The number of masks written.

    Raises:
        DataError: an image has no mask in any source, or its mask cannot be read.
    """
    missing = sorted(name for name in set(ids) if not (folder / f"{name}.png").is_file())
    make = partial(_make_mask, sources, folder)
    for _ in parallel_map(make, missing, title="making masks", unit="mask", workers=workers):
        pass
    return len(missing)


def _make_mask(sources: Sources, folder: Path, name: str) -> None:
    target = folder / f"{name}.png"
    ready = [sources.voc / folder / f"{name}.png" for folder in ("SegmentationClass", MASKS)]
    if sources.masks is not None:
        ready.insert(0, sources.masks / f"{name}.png")
    for path in ready:
        if path.is_file():
            read_mask(path)  # raises the error for a damaged or colour mask here, not in training
            place(path, target)
            return
    matlab = None if sources.sbd is None else sources.sbd / "cls" / f"{name}.mat"
    if matlab is None or not matlab.is_file():
        raise DataError(f"{name}: has no mask in VOC, SBD or the ready masks; fetch them again")
    write_mask(target, read_sbd_mask(matlab))


def read_sbd_mask(path: Path) -> np.ndarray:
    """Read the class mask of an SBD ``.mat`` file, uint8 [H,W] of 0 to 20; SBD has no void label.

    Raises:
        DataError: the file is damaged or of another kind.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    damage = OSError, ValueError, KeyError, AttributeError, TypeError, MatReadError, NotImplementedError
    try:
        classes = loadmat(path, squeeze_me=True, struct_as_record=False)["GTcls"].Segmentation
    except damage as failure:
        reason = type(failure).__name__
        raise DataError(f"{path}: no class mask of SBD can be read ({reason}); fetch it again") from None
    return np.asarray(classes, np.uint8)
