"""The files of ``lists/`` under version control: class names, fold tables, and counts to verify a copy.

They follow from the rules of this project and the label areas of the masks. The image lists themselves are
made on each machine from the official archives, and are ignored by git.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from fewseg.dataset.classes.shared_names import known_names
from fewseg.dataset.classes.split import class_split
from fewseg.dataset.labels import FOLDS
from fewseg.dataset.lists.area_index import AreaIndex
from fewseg.dataset.lists.image_lists import ImageList, episode_lists

SYSTEMS = {"pascal": (False,), "coco": (False, True), "shapes": (False,)}
"""Whether the folds of each data set are interleaved; COCO has both kinds of folds."""

COUNTS_FILE = "counts.json"
PASCAL_COUNTS = Path(__file__).resolve().parents[2] / "lists" / "pascal" / COUNTS_FILE


def tables(data_set: str) -> dict[str, str]:
    """Return the files of a data set that do not depend on its masks: name -> text."""
    names = known_names(data_set)
    files = {"classes.txt": "\n".join(names) + "\n"}
    for interleaved in SYSTEMS[data_set]:
        lines = [
            ", ".join(names[c] for c in class_split(data_set, fold, interleaved=interleaved).novel)
            for fold in range(FOLDS)
        ]
        files[f"folds_{'interleaved' if interleaved else 'consecutive'}.txt"] = "\n".join(lines) + "\n"
    return files


def fold_counts(
    train: ImageList, train_areas: AreaIndex, val: ImageList, val_areas: AreaIndex, data_set: str
) -> dict[str, dict[str, int]]:
    """Return the number of images that every fold lists for training (both ``novel_in_train``) and test."""
    counts = {}
    for fold in range(FOLDS):
        split = class_split(data_set, fold)
        listed = partial(episode_lists, train, train_areas, split, novel=False, shot=0)
        counts[str(fold)] = {
            "train_novel_removed": len(listed(drop_unwanted=True).queries),
            "train_novel_as_background": len(listed().queries),
            "test": len(episode_lists(val, val_areas, split, novel=True, shot=0).queries),
        }
    return counts


def to_text(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return the content of the file of counts."""
    return json.dumps(counts, indent=1) + "\n"
