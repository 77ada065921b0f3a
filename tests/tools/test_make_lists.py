"""The files under ``lists/`` are those that the command makes."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from fewseg.dataset.classes.split import class_split
from fewseg.dataset.lists.image_lists import read_image_list
from fewseg.dataset.prepare.shipped_lists import COUNTS_FILE, SYSTEMS, fold_counts, to_text
from fewseg.util.errors import UserError
from tests.dataset.lists.areas import index_of
from tools.make_lists import main

LISTS = Path(__file__).resolve().parents[2] / "lists"


def test_the_committed_tables_are_what_the_command_writes(tmp_path):
    main(["--lists", str(tmp_path)])
    made = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.txt")}
    assert {str(path.parent) for path in made} == set(SYSTEMS)
    for path, text in made.items():
        assert (LISTS / path).read_text() == text


def test_the_committed_counts_come_from_the_label_areas(shared, tmp_path):
    folder, areas = shared / "splits" / "pascal", {}
    with gzip.open(folder / "class_areas.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            found = {int(c): int(n) for c, n in (pair.split(":") for pair in row["areas"].split())}
            areas[f"SegmentationClassAug/{row['image']}.png"] = (int(row["height"]), int(row["width"]), found)
    parts = [read_image_list(tmp_path, folder / name) for name in ("train_5953.txt", "val_1449.txt")]
    train, val = parts
    of_train, of_val = (index_of({mask: areas[mask] for mask in part.masks}) for part in parts)
    counts = fold_counts(train, of_train, val, of_val, "pascal")
    assert (LISTS / "pascal" / COUNTS_FILE).read_text() == to_text(counts)
    assert [fold["train_novel_removed"] for fold in counts.values()] == [4208, 3726, 2752, 4510]
    assert [fold["test"] for fold in counts.values()] == [364, 445, 592, 336]


def test_the_folds_are_those_of_hsnet(shared):
    folds = json.loads((shared / "splits" / "hsnet" / "coco" / "val.json").read_text())["folds"]
    for fold, zero_based in folds.items():
        assert class_split("coco", int(fold), interleaved=True).novel == tuple(c + 1 for c in zero_based)


def test_a_mistake_is_one_line(tmp_path):
    with pytest.raises(UserError, match="nowhere") as caught:
        main(["--lists", str(tmp_path), "--pascal", str(tmp_path / "nowhere")])
    assert "\n" not in str(caught.value)
