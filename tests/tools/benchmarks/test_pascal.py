"""What a full test on PASCAL-5i takes, added up from the costs of its parts."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.classes.split import class_split
from fewseg.dataset.episodes.protocol import load_protocol
from fewseg.dataset.lists.image_lists import ImageList
from tests.dataset.lists.areas import index_of
from tools.benchmarks.pascal import (
    COMPARISONS,
    EPISODES,
    FOLDS,
    SHOTS,
    Costs,
    full_test_seconds,
    one_by_one_seconds,
)


def test_a_run_encodes_every_image_once_and_decodes_every_episode() -> None:
    assert Costs(query=1, support=0, decode=0, count=0).run(2) == 592
    assert Costs(query=0, support=1, decode=0, count=0).run(2) == 734
    assert Costs(query=0, support=0, decode=0.5, count=0.25).run(2) == 0.75 * 5000
    assert Costs(query=0, support=0, decode=0, count=0, compare=2, shot=5).run(0) == 2 * 16410
    assert Costs(query=0, support=0, decode=0, count=0, compare=2, shot=3).run(0) == 2 * 3 * 5000
    assert Costs(query=2, support=3, decode=0.5, count=0.25).run(0) == 2 * 364 + 3 * 365 + 3750


def test_a_full_test_has_all_folds_with_every_number_of_shots() -> None:
    costs = {1: Costs(1, 0, 0, 0), 5: Costs(0, 1, 0.5, 0)}
    assert full_test_seconds(costs) == (364 + 445 + 592 + 336) + (365 + 467 + 734 + 357) + 4 * 2500
    assert one_by_one_seconds({1: 0.5, 5: 2.0}) == 4 * 5000 * 2.5


def test_counts_of_images_are_those_of_the_real_lists(shared: Path) -> None:
    areas = {}
    with gzip.open(shared / "splits/pascal/class_areas.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            pairs = (pair.split(":") for pair in row["areas"].split())
            labels = {int(label): int(pixels) for label, pixels in pairs}
            areas[row["image"]] = (int(row["height"]), int(row["width"]), labels)
    listed = (shared / "splits/pascal/val_1449.txt").read_text().splitlines()
    names = tuple(Path(line.split()[0]).stem for line in listed)
    protocol = load_protocol("bam")
    assert len(protocol.seeds) * protocol.episodes == EPISODES
    for number, (queries, pairs) in enumerate(FOLDS):
        fold = Fold("pascal", number, class_split("pascal", number), protocol, shared, Path(), Path())
        fold.__dict__["val_images"] = ImageList(shared, names, names, names)
        fold.__dict__["val_areas"] = index_of({name: areas[name] for name in names})
        for shot in SHOTS:
            specs = [spec for seed in protocol.seeds for spec in fold.manifest(seed, shot)]
            assert len({spec.query for spec in specs}) == queries
            supports = {(name, spec.class_ids[0]) for spec in specs for name in spec.supports[0]}
            assert len(supports) == pairs
            compared = {(s.query, name, s.class_ids[0]) for s in specs for name in s.supports[0]}
            assert len(compared) == COMPARISONS[shot][number]
