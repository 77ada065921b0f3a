"""Scores of a protocol against recorded figures and against plain loops over pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.classes.split import class_split
from fewseg.dataset.episodes.manifest import Manifest
from fewseg.dataset.episodes.protocol import Protocol, load_protocol
from fewseg.dataset.episodes.sampling import EpisodeSpec
from fewseg.engine.evaluation.scores import Scores
from fewseg.model.contract import Prediction
from fewseg.util.metrics import Counts
from tests.parity.cases import load_case
from tests.parity.comparison import assert_close
from tests.parity.inputs import prediction_and_target


@pytest.mark.parity
@pytest.mark.parametrize("name", ["1way", "2way"])
def test_panets_protocol_counts_as_panet_does(tmp_path: Path, name: str) -> None:
    """In every fourth episode the query does not show the first class: PANet then counts nothing of it."""
    _, case = load_case("panet/metric", name)
    rule = case.meta["inputs"]
    number, ways = (rule["labels"][0] - 1) // 5, rule["ways"]
    protocol = load_protocol("panet")
    assert not protocol.count_absent and protocol.label_size == "input"
    fold = Fold("pascal", number, class_split("pascal", number), protocol, tmp_path, tmp_path, tmp_path)
    for run in range(rule["n_runs"]):
        listed = [(classes, seed) for of, classes, seed in rule["episode_list"] if of == run]
        specs = tuple(EpisodeSpec("query", tuple(classes), (("support",),) * ways) for classes, _ in listed)
        manifest = Manifest("pascal", number, "panet", 1234 + run, 1, ways, "class", False, specs)
        scores = Scores(fold, manifest)
        for index, (classes, seed) in enumerate(listed):
            predicted, target = prediction_and_target(rule, seed, absent=index % 4 == 3)
            logits = torch.nn.functional.one_hot(torch.from_numpy(predicted).long(), 1 + ways)
            label = np.array([0, *classes, *[0] * (254 - ways), 255], np.uint8)[target]
            scores.add(index, Prediction(logits.permute(2, 0, 1)[None].float(), {}), label)
        found = scores.metrics()
        assert_close(found["mIoU"], case.arrays["per_run_mean_iou"][run], 1e-6, 0)
        assert_close(found["FB-IoU"], case.arrays["per_run_binary_mean_iou"][run], 1e-6, 0)


SIZE = 12, 10
"""Of the made-up labels."""

ASKED = ((6,), (8,), (8,), (10,), (6,))
"""Classes of the made-up episodes; the query of the fourth does not show its class."""


def opened(root: Path, protocol: Protocol, classes: tuple[tuple[int, ...], ...] = ASKED) -> Scores:
    """Scores of PASCAL's fold 1, whose novel classes are 6 to 10, under a protocol."""
    fold = Fold("pascal", 1, class_split("pascal", 1), protocol, root, root, root)
    specs = tuple(EpisodeSpec("query", way, (("support",),) * len(way)) for way in classes)
    ways = len(classes[0])
    return Scores(fold, Manifest("pascal", 1, protocol.name, 1, 1, ways, "list", False, specs))


def made_up(number: int, classes: tuple[int, ...]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A label of dataset ids, and what the three parts say: ways, ways, ranks of base classes."""
    draw = np.random.default_rng(number)
    shown = [0, 0, 2, 7, 17, 255] if number == 3 else [0, *classes, 2, 7, 17, 255]
    ways = 1 + len(classes)
    parts = {"final": draw.integers(0, ways, SIZE), "meta": draw.integers(0, ways, SIZE)}
    return draw.choice(shown, SIZE).astype(np.uint8), parts | {"base": draw.integers(0, 16, SIZE)}


def certain(said: np.ndarray, channels: int) -> torch.Tensor:
    """Logits [1,channels,H,W] whose largest are where ``said`` says."""
    return torch.nn.functional.one_hot(torch.from_numpy(said), channels).permute(2, 0, 1)[None].float()


def by_hand(said: np.ndarray, label: np.ndarray, classes: list[int], protocol: Protocol) -> np.ndarray:
    """Intersection, union and target of background and classes, int [1 + classes, 3], pixel by pixel."""
    found = np.zeros((1 + len(classes), 3), int)
    for row, column in np.ndindex(*SIZE):
        truth, claim = int(label[row, column]), int(said[row, column])
        if truth == 255 and protocol.ignore:
            continue
        truth = 1 + classes.index(truth) if truth in classes else 0
        found[truth, 2] += 1
        found[truth, 1] += 1
        if claim == truth:
            found[truth, 0] += 1
        else:
            found[claim, 1] += 1
    if not protocol.count_absent:
        found[found[:, 2] == 0] = 0
    return found


def means(sums: np.ndarray, protocol: Protocol, suffix: str) -> dict[str, float]:
    """The metrics of summed counts [1 + classes, 3]."""
    ious = [row[0] / row[1] if row[1] else 0.0 for row in sums]
    counted = [iou for iou, row in zip(ious, sums, strict=True) if row[2] or not protocol.leaves_absent_out]
    mean = sum(counted[1:]) / len(counted[1:])
    pooled = sum(row[0] for row in sums[1:]) / sum(row[1] for row in sums[1:])
    found = {f"mIoU{suffix}": mean, f"FB-IoU{suffix}": (ious[0] + pooled) / 2, f"pIoU{suffix}": pooled}
    if not protocol.fb_iou:
        del found[f"FB-IoU{suffix}"]
    return found


PROTOCOLS = (
    load_protocol("bam"),
    load_protocol("bam", ignore=False),
    load_protocol("panet"),
    load_protocol("mlc"),
    load_protocol("mlc", count_absent=False),
)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_counts_and_metrics_equal_a_loop_over_the_pixels(tmp_path: Path, protocol: Protocol) -> None:
    scores = opened(tmp_path, protocol)
    split = scores.fold.classes
    sums = {part: np.zeros((6, 3), int) for part in ("final", "meta")}
    base = np.zeros((16, 3), int)
    for number, (class_id,) in enumerate(ASKED):
        label, said = made_up(number, (class_id,))
        logits = {"meta": certain(said["meta"], 2), "base": certain(said["base"], 16)}
        prediction = Prediction(certain(said["final"], 2), logits)
        scores.add(number, prediction, label)
        scores.store([number], scores.count_base(prediction, label))
        assert scores.count_base(Prediction(prediction.logits, {}), label) == {}
        whole = load_protocol("bam", ignore=protocol.ignore)  # of the base learner, absent classes count too
        base += by_hand(said["base"], label, list(split.base), whole)
        for part in sums:
            counts = by_hand(said[part], label, [class_id], protocol)
            assert scores.episodes[part][number].tolist() == counts.tolist()
            sums[part][[0, class_id - 5]] += counts
    wanted = means(sums["final"], protocol, "") | means(sums["meta"], protocol, "_meta")
    seen = [row for row in base[1:] if row[2]]
    wanted["mIoU_base"] = sum(row[0] / row[1] for row in seen) / len(seen)
    assert 0 < len(seen) < 15
    assert scores.metrics() == pytest.approx(wanted, abs=1e-9) and list(scores.metrics()) == list(wanted)
    rows = {name: sums["final"][1 + i] for i, name in enumerate(("bus", "car", "cat", "chair", "cow"))}
    ious = {name: row[0] / row[1] if row[2] else None for name, row in rows.items()}
    assert scores.class_iou() == {name: iou and pytest.approx(iou, abs=1e-9) for name, iou in ious.items()}
    assert scores.first_novel == 1 and ious["car"] is ious["cow"] is None


@pytest.mark.parametrize("protocol", [load_protocol("bam"), load_protocol("panet")])
def test_counts_of_two_ways_equal_a_loop_over_the_pixels(tmp_path: Path, protocol: Protocol) -> None:
    asked = ((6, 9), (9, 7), (10, 6))
    scores = opened(tmp_path, protocol, asked)
    sums = np.zeros((6, 3), int)
    for number, classes in enumerate(asked):
        label, said = made_up(number, classes)
        meta = {"meta": certain(said["meta"], 3)}
        scores.add(number, Prediction(certain(said["final"], 3), meta), label)
        counts = by_hand(said["final"], label, list(classes), protocol)
        assert scores.episodes["final"][number].tolist() == counts.tolist()
        sums[[0, *(class_id - 5 for class_id in classes)]] += counts
    assert scores.metrics() == pytest.approx(means(sums, protocol, ""), abs=1e-9)
    assert not scores.counted("meta") and not scores.counted("other") and scores.counted("final")
    assert scores.episodes["final"].shape == scores.episodes["meta"].shape == (3, 3, 3)
    assert scores.episodes["final"].dtype == torch.int64


def test_what_looks_at_the_first_way_only_counts_for_its_class(tmp_path: Path) -> None:
    scores = opened(tmp_path, load_protocol("bam"), ((9, 7),))
    counts = Counts(torch.tensor([3, 4]), torch.tensor([5, 6]), torch.tensor([4, 6]))
    scores.add_counts("final", 0, counts)
    assert scores.episodes["final"][0].tolist() == [[3, 5, 4], [4, 6, 6], [0, 0, 0]]
    assert scores.meter("final").counts.tolist() == [
        [3, 0, 0, 0, 4, 0],
        [5, 0, 0, 0, 6, 0],
        [4, 0, 0, 0, 6, 0],
    ]


@pytest.mark.parametrize(("align_corners", "columns"), [(True, 1), (False, 2)])
def test_logits_are_enlarged_as_the_protocol_says(tmp_path: Path, align_corners: bool, columns: int) -> None:
    """Between -1.6 and 0.4, five columns lie at equal steps, or their centres on those of two wide ones."""
    scores = opened(tmp_path, load_protocol("bam", align_corners=align_corners))
    logits = torch.tensor([[0.0, 0.0], [-1.6, 0.4]])[None, :, None]
    counts = scores.count_maps(logits, torch.ones(1, 1, 5, dtype=torch.uint8))
    assert counts.intersection.tolist() == [[0, columns]]


@pytest.mark.parametrize(
    ("label_size", "resize", "rows", "columns"),
    [
        ("original", "letterbox", 16, 32),
        ("original", "shrink", 16, 24),
        ("original", "native", 32, 32),
        ("original", "stretch", 32, 32),
        ("square", "letterbox", 32, 32),
        ("input", "letterbox", 32, 32),
    ],
)
def test_padding_is_cut_off_where_the_label_has_none(
    tmp_path: Path, label_size: str, resize: str, rows: int, columns: int
) -> None:
    scores = opened(tmp_path, load_protocol("bam", label_size=label_size, resize=resize, input_size=32))
    logits, target = torch.rand(1, 2, 32, 32), torch.ones(1, 16, 24, dtype=torch.uint8)
    assert torch.equal(scores.without_padding(logits, (16, 24)), logits[..., :rows, :columns])
    logits[:, 1] = torch.where(torch.arange(32)[:, None] < rows, 2.0, -2.0)
    assert scores.count_maps(logits, target).intersection.tolist() == [[0, 16 * 24]]


@pytest.mark.parametrize(("name", "shape"), [("bam", (5, 5)), ("mlc", (3, 5)), ("hsnet", (400, 400))])
def test_labels_are_squares_where_the_protocol_compares_with_squares(
    tmp_path: Path, name: str, shape: tuple[int, int]
) -> None:
    label = opened(tmp_path, load_protocol(name)).fold.scored_label(np.full((3, 5), 6, np.uint8))
    content = 400 if name == "hsnet" else 3
    assert label.shape == shape and (label[:content] == 6).all() and (label[content:] == 255).all()
