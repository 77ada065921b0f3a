"""IoU accounting against the figures of the published evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fewseg.util.metrics import (
    Counts,
    IoUMeter,
    count_logits,
    count_per_image,
    intersection_union_target,
    merge_generalised,
    resize_logits,
)
from tests.parity import inputs
from tests.parity.cases import load_case

NOVEL, BASE = 5, 15
TOLERANCE = 1e-6


@pytest.fixture
def recorded() -> dict:
    return load_case("data", "iou_accounting")[1].meta


@pytest.fixture
def episodes(recorded: dict) -> list[dict[str, Tensor | int]]:
    def make(spec: list | int) -> Tensor | int:
        return spec if isinstance(spec, int) else torch.from_numpy(inputs.make(spec))

    return [{key: make(spec) for key, spec in episode.items()} for episode in recorded["episodes"]]


def square(label: Tensor, side: int | None = None) -> Tensor:
    """The original label in its square, or, with ``side``, in the square of the network's input."""
    side = side or max(label.shape)
    canvas = torch.full((side, side), 255, dtype=label.dtype)
    canvas[: label.shape[0], : label.shape[1]] = label
    return canvas


@pytest.mark.parity
class TestFewShot:
    @pytest.mark.parametrize(("setting", "side"), [("fss_ori_resize", None), ("fss_square_label_96", 96)])
    def test_matches_the_published_figures(
        self, recorded: dict, episodes: list[dict], setting: str, side: int | None
    ) -> None:
        final, meta, base = IoUMeter(1 + NOVEL), IoUMeter(1 + NOVEL), IoUMeter(1 + BASE)
        for episode in episodes:
            rows = (0, 1 + episode["class_index"])
            label = square(episode["label"][0], side)
            final.add(count_logits(episode["logits"], label), rows)
            meta.add(count_logits(episode["meta_logits"], label), rows)
            base.add(count_logits(episode["base_logits"], square(episode["base_label"][0], side)))
        measured = {
            "mIoU": final.mean_iou(),
            "FBIoU": final.foreground_background_iou(),
            "pIoU": final.pooled_iou(),
            "mIoU_meta": meta.mean_iou(),
            "FBIoU_meta": meta.foreground_background_iou(),
            "mIoU_base": base.mean_iou(present_only=True),
        }
        assert measured == pytest.approx(recorded["results"][setting], abs=TOLERANCE)

    def test_counts_of_every_episode(self, recorded: dict, episodes: list[dict]) -> None:
        for episode, expected in zip(episodes, recorded["per_episode_final"], strict=True):
            counts = count_logits(episode["logits"], square(episode["label"][0]))
            assert {name: value.tolist() for name, value in counts._asdict().items()} == expected


@pytest.mark.parity
@pytest.mark.parametrize("merge", ["final", "base"])
@pytest.mark.parametrize("tau", [0.9, 0.5])
def test_generalised_matches_the_published_figures(
    recorded: dict, episodes: list[dict], merge: str, tau: float
) -> None:
    meter = IoUMeter(1 + BASE + NOVEL)
    for episode in episodes:
        label = square(episode["gfss_label"][0])[None]
        final, base = (resize_logits(episode[key], label.shape[-2:]) for key in ("logits", "base_logits"))
        counts = intersection_union_target(merge_generalised(final, base, merge, tau), label, BASE + 2)
        meter.add(counts, rows=(*range(1 + BASE), 1 + BASE + episode["class_index"]))
    measured = {
        "FBIoU": meter.foreground_background_iou(),
        "pIoU": meter.pooled_iou(),
        "mIoU_novel": meter.mean_iou(slice(1 + BASE, None)),
        "mIoU_base": meter.mean_iou(slice(1, 1 + BASE)),
        "mIoU_total": meter.mean_iou(),
    }
    assert measured == pytest.approx(recorded["results"][f"gfss_{merge}_tau{tau}"], abs=TOLERANCE)


def test_void_pixels_count_nowhere() -> None:
    counts = intersection_union_target(torch.tensor([1, 1, 0]), torch.tensor([1, 255, 255]), 2)
    assert [part.tolist() for part in counts] == [[0, 1], [0, 1], [0, 1]]


def test_counts_are_those_of_a_confusion_matrix() -> None:
    rng = np.random.default_rng(0)
    prediction, label = rng.integers(0, 5, (2, 40, 30))
    label[rng.random(label.shape) < 0.1] = 255
    confusion = np.zeros((5, 5), int)
    for truth, guess in zip(label.ravel(), prediction.ravel(), strict=True):
        if truth != 255:
            confusion[truth, guess] += 1
    counts = intersection_union_target(torch.from_numpy(prediction), torch.from_numpy(label), 5)
    hits, targets = confusion.diagonal(), confusion.sum(1)
    assert counts.intersection.tolist() == hits.tolist()
    assert counts.target.tolist() == targets.tolist()
    assert counts.union.tolist() == (targets + confusion.sum(0) - hits).tolist()


def test_the_epsilon_lowers_an_iou() -> None:
    meter = IoUMeter(2)
    meter.add(Counts(*(torch.tensor([1, 1]) for _ in range(3))))
    assert meter.class_iou().tolist() == [1 / (1 + 1e-10)] * 2
    assert meter.pooled_iou() == 1 / (1 + 1e-10) < 1


def test_only_classes_that_a_label_holds_count_by_panets_rule() -> None:
    counts = Counts(torch.tensor([3, 0, 1]), torch.tensor([9, 4, 1]), torch.tensor([5, 0, 1]))
    kept = counts.where_labelled()
    assert [entry.tolist() for entry in kept] == [[3, 0, 1], [9, 0, 1], [5, 0, 1]]


def test_the_iou_of_a_class_is_open_where_no_label_holds_it() -> None:
    meter = IoUMeter(4)
    meter.add(Counts(torch.tensor([3, 0, 1, 0]), torch.tensor([9, 4, 2, 8]), torch.tensor([5, 0, 1, 8])))
    assert meter.class_iou_if_tested() == [pytest.approx(1 / 3), None, pytest.approx(1 / 2), 0]


def test_a_single_pixel_makes_a_class_present() -> None:
    meter = IoUMeter(4)
    meter.add(Counts(torch.tensor([3, 0, 1, 0]), torch.tensor([9, 4, 1, 8]), torch.tensor([5, 0, 1, 8])))
    assert meter.mean_iou(present_only=True) == pytest.approx(1 / 2)
    assert meter.mean_iou() == pytest.approx(1 / 3)


def test_nine_in_ten_claim_a_pixel_unless_told_otherwise() -> None:
    claims = torch.tensor([0.89, 0.91])
    final = torch.stack([(1 - claims).log(), claims.log()])[None, :, None]
    assert merge_generalised(final, torch.zeros(1, 3, 1, 2)).tolist() == [[[0, 3]]]


def test_labels_may_come_one_by_one_or_as_a_batch() -> None:
    label = torch.tensor([[[0, 1], [1, 255]], [[1, 1], [0, 0]]])
    logits = torch.nn.functional.one_hot(torch.tensor([[[0, 0], [1, 1]], [[1, 0], [0, 1]]]), 2)
    logits = logits.permute(0, 3, 1, 2).float()
    both = count_logits(logits, label)
    alone = [count_logits(logits[i : i + 1], label[i]) for i in (0, 1)]
    assert [entry.tolist() for entry in both] == [[2, 2], [5, 5], [3, 4]]
    assert all(torch.equal(entry, sum(parts)) for entry, *parts in zip(both, *alone, strict=True))


def test_absent_classes_count_as_zero_unless_left_out() -> None:
    meter = IoUMeter(4)
    meter.add(Counts(torch.tensor([0, 1]), torch.tensor([2, 2]), torch.tensor([1, 1])), (0, 2))
    assert meter.mean_iou() == pytest.approx(0.5 / 3)
    assert meter.mean_iou(present_only=True) == pytest.approx(0.5)


def test_the_novel_class_is_claimed_above_the_threshold_only() -> None:
    undecided, base = torch.zeros(1, 2, 1, 1), torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    assert merge_generalised(undecided, base, merge_tau=0.5).item() == 0
    assert merge_generalised(undecided, base, merge_tau=0.49).item() == 3


def test_all_void_gives_zero_and_no_nan() -> None:
    meter = IoUMeter(2)
    meter.add(intersection_union_target(torch.ones(4).long(), torch.full((4,), 255), 2))
    assert (meter.mean_iou(), meter.foreground_background_iou(), meter.mean_iou(present_only=True)) == (
        0,
        0,
        0,
    )


def test_order_and_merging_change_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    parts = [
        Counts(*(torch.randint(0, 1 << 50, (2,), generator=generator) for _ in range(3))) for _ in range(6)
    ]
    together, first, second = IoUMeter(4), IoUMeter(4), IoUMeter(4)
    for number, counts in enumerate(parts):
        together.add(counts, (0, 1 + number % 3))
    for number, counts in reversed(list(enumerate(parts))):
        (first if number % 2 else second).add(counts, (0, 1 + number % 3))
    assert torch.equal(first.counts + second.counts, together.counts)


def test_maps_of_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="resize one"):
        intersection_union_target(torch.zeros(2, 2), torch.zeros(3, 2), 2)


def by_selection(prediction: Tensor, label: Tensor, classes: int) -> list[list[int]]:
    """Intersection, union and target of the valid pixels of one image, by the definition."""
    valid = label != 255
    said, truth = prediction[valid], label[valid].long()
    hits, claims, areas = (
        torch.bincount(values, minlength=classes) for values in (truth[said == truth], said, truth)
    )
    return [hits.tolist(), (claims + areas - hits).tolist(), areas.tolist()]


@pytest.mark.parametrize("classes", [2, 3, 16, 61])
@pytest.mark.parametrize("kind", [torch.int64, torch.uint8])
def test_every_image_of_a_batch_is_counted_alone(classes: int, kind: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(classes)
    prediction, label = torch.randint(0, classes, (2, 5, 23, 31), generator=generator)
    label[torch.rand(label.shape, generator=generator) < 0.2] = 255
    label[3], label[4, 0, 0] = 255, classes - 1
    counts = count_per_image(prediction, label.to(kind), classes)
    assert all(entry.dtype == torch.int64 for entry in counts)
    for image in range(5):
        found = [entry[image].tolist() for entry in counts]
        assert found == by_selection(prediction[image], label[image], classes)
        alone = intersection_union_target(prediction[image], label[image].to(kind), classes)
        assert [entry.tolist() for entry in alone] == found


def test_unknown_merge_is_refused() -> None:
    with pytest.raises(ValueError, match="'final' or 'base'"):
        merge_generalised(torch.zeros(1, 2, 1, 1), torch.zeros(1, 3, 1, 1), "both")
