"""COCO 2014: masks of 80 contiguous class ids, painted from the instance annotations by pycocotools.

Class ids number the categories by ascending category id. Crowd regions count as their class and are painted
first; then objects by descending area, so that the smaller of two overlapping objects stays visible (of equal
areas, the higher annotation id is on top). There is no void label. Images without annotations are not listed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ijson
import numpy as np

from fewseg.dataset.classes.shared_names import COCO_NAMES
from fewseg.dataset.labels import VOID
from fewseg.dataset.prepare.download import Archive
from fewseg.dataset.prepare.files import write_mask
from fewseg.util.errors import DataError
from fewseg.util.parallel import parallel_map

_SERVERS = ("http://images.cocodataset.org", "https://s3.amazonaws.com/images.cocodataset.org")
"""The official server, and the storage behind it, which supports HTTPS."""


def _archive(folder: str, name: str, md5: str) -> Archive:
    return Archive(name, tuple(f"{server}/{folder}/{name}" for server in _SERVERS), f"md5:{md5}")


ARCHIVES = {
    "train2014": _archive("zips", "train2014.zip", "0da8c0bd3d6becc4dcb32757491aca88"),
    "val2014": _archive("zips", "val2014.zip", "a3d79f5ed8d289b7a7554ce06a5782b3"),
    "annotations": _archive(
        "annotations", "annotations_trainval2014.zip", "0a379cfc70b0e71301e0f377548639bd"
    ),
}

COUNTS = {"train2014": (82783, 82081), "val2014": (40504, 40137)}
"""Number of images of each part, and of those with annotations, which are listed."""


@dataclass(frozen=True)
class Job:
    """One image to paint: its file name, its size, and its annotations as JSON texts."""

    name: str
    height: int
    width: int
    annotations: tuple[str, ...]


@dataclass(frozen=True)
class Annotations:
    """The content of an ``instances_*.json``.

    Attributes:
        path: the file.
        class_ids: category id -> contiguous class id.
        names: names of the classes, "background" first.
        images: number of images that the file lists.
        jobs: the annotated images in the order of their file names.
    """

    path: Path
    class_ids: dict[int, int]
    names: tuple[str, ...]
    images: int
    jobs: list[Job]


def read_annotations(path: Path) -> Annotations:
    """Read an ``instances_*.json``.

    A whole parsed file of COCO takes 2.5 GB, so elements are parsed one by one and outlines are kept as text.

    Raises:
        DataError: the file is missing, truncated, or has other keys.
    """
    outlines: dict[int, list[str]] = defaultdict(list)
    try:
        categories = {value["id"]: value["name"] for value in _elements(path, "categories")}
        images = {v["id"]: (v["file_name"], v["height"], v["width"]) for v in _elements(path, "images")}
        for annotation in _elements(path, "annotations"):
            outlines[annotation["image_id"]].append(json.dumps(annotation))
    except (KeyError, TypeError):
        raise DataError(f"{path}: these are no COCO instance annotations; give instances_*.json") from None
    if not (categories and images and outlines):
        raise DataError(f"{path}: holds no categories, images or annotations; give instances_*.json")
    if len(categories) >= VOID:
        raise DataError(f"{path}: {len(categories)} categories, but masks hold at most {VOID - 1}")
    if unlisted := outlines.keys() - images.keys():
        raise DataError(f"{path}: image {min(unlisted)} is annotated but not listed; fetch it again")
    class_ids = {category: i for i, category in enumerate(sorted(categories), 1)}
    names = ("background", *(categories[category] for category in class_ids))
    jobs = [Job(*images[image_id], tuple(texts)) for image_id, texts in outlines.items()]
    return Annotations(path, class_ids, names, len(images), sorted(jobs, key=lambda job: job.name))


def _elements(path: Path, key: str) -> Iterator[Any]:
    """Yield the elements of a top-level array of a JSON file."""
    try:
        with path.open("rb") as file:
            yield from ijson.items(file, f"{key}.item", use_float=True)
    except OSError as failure:
        raise DataError(f"{path}: cannot be read ({failure.strerror})") from None
    except ijson.JSONError as failure:
        reason = " ".join(str(failure).split())[:80]
        raise DataError(f"{path}: cannot be read: truncated or no JSON ({reason}); fetch it again") from None


def paint_masks(annotations: Annotations, folder: Path, *, workers: int | None = None) -> list[str]:
    """Write the masks of those annotated images that have none yet.

    Returns:
        The file names of the annotated images.

    Raises:
        DataError: an annotation cannot be read, or a mask cannot be written.
    """
    missing = [job for job in annotations.jobs if not mask_path(folder, job.name).is_file()]
    paint = partial(_paint_file, annotations.path, annotations.class_ids, folder)
    for _ in parallel_map(paint, missing, title=f"painting {folder.name}", workers=workers):
        pass
    return [job.name for job in annotations.jobs]


def mask_path(folder: Path, image: str) -> Path:
    """Return where the mask of an image lies."""
    return folder / Path(image).with_suffix(".png").name


def _paint_file(path: Path, class_ids: dict[int, int], folder: Path, job: Job) -> None:
    try:
        annotations = [json.loads(text) for text in job.annotations]
        mask = paint(annotations, class_ids, job.height, job.width)
    except (KeyError, TypeError, ValueError, IndexError) as failure:
        raise DataError(f"{path}: an annotation of {job.name} cannot be painted ({failure!r})") from None
    write_mask(mask_path(folder, job.name), mask)


def paint(
    annotations: Sequence[dict[str, Any]], class_ids: dict[int, int], height: int, width: int
) -> np.ndarray:
    """Paint the annotations of one image by the rules of this module.

    Returns:
        uint8 [height, width] of contiguous class ids.
    """
    from pycocotools import mask as coco_mask

    out = np.zeros((height, width), np.uint8)
    order = sorted(annotations, key=lambda a: (not a.get("iscrowd", 0), -a["area"], a["id"]))
    for annotation in order:
        outline = annotation["segmentation"]
        if isinstance(outline, list):
            polygons = [part for part in outline if len(part) >= 6]  # three corners
            if not polygons:
                continue
            encoded = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
        elif isinstance(outline["counts"], list):
            encoded = coco_mask.frPyObjects(outline, height, width)
        else:
            encoded = outline
        out[coco_mask.decode(encoded) == 1] = class_ids[annotation["category_id"]]
    return out


def check_categories(annotations: Annotations) -> None:
    """Raise DataError unless the categories are COCO's 80."""
    if annotations.names != COCO_NAMES:
        raise DataError(
            f"{annotations.path}: names {len(annotations.names) - 1} categories that are not COCO's 80; use "
            "--subset for a data set of another kind, whose classes then go to classes.txt"
        )
