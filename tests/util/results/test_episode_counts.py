"""Counts of episodes against independent computations: plain loops, and SciPy's bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fewseg.util.errors import ResultError
from fewseg.util.results import episode_counts
from fewseg.util.results.comparison import bounds, comparison_table, difference_table, read_runs
from fewseg.util.results.episode_counts import VERSION, EpisodeCounts, counts_path, read_counts
from fewseg.util.results.identity import file_name
from fewseg.util.results.result import Result, SeedResult, write_result

SEEDS, EPISODES, CLASSES = 2, 60, 7
Ratio = Callable[[int, int], float]


def drawn_counts(
    seed: int = 0, *, first_novel: int = 1, left_out: bool = False, absent: int | None = None
) -> EpisodeCounts:
    """Draw counts of background and one or two classes per episode, with a meta-learner's beside them."""
    rng = np.random.default_rng(seed)
    foreign = np.arange(1, CLASSES)[np.arange(1, CLASSES) != absent]
    rows = np.zeros((SEEDS, EPISODES, 3), np.int16)
    for number in np.ndindex(SEEDS, EPISODES):
        rows[number][1:] = rng.choice(foreign, 2, replace=False)
    hit, missed, alarm = rng.integers(1, 90, (3, 2, SEEDS, EPISODES, 3))
    parts = np.stack([hit, hit + missed + alarm, hit + missed], -1).astype(np.int32)
    hashes = np.array(["0123456789abcdef", "fedcba9876543210"])
    return EpisodeCounts(hashes, rows, parts[0], parts[1], CLASSES, first_novel, left_out)


def plain_metric(counts: EpisodeCounts, metric: str, seed: int, episodes: np.ndarray | None = None) -> float:
    """Compute a metric of one seed by adding up one number after the other, in Python's integers."""
    part = counts.meta if metric.endswith("_meta") else counts.counts
    totals = {name: [0, 0, 0] for name in range(counts.classes)}
    for episode in range(EPISODES) if episodes is None else episodes:
        for place, name in enumerate(counts.rows[seed][episode]):
            for kind in range(3):
                totals[int(name)][kind] += int(part[seed][episode][place][kind])
    iou = {name: hit / union if union else 0.0 for name, (hit, union, _) in totals.items()}
    foreground = [totals[name] for name in totals if name > 0]
    pooled = sum(total[0] for total in foreground) / sum(total[1] for total in foreground)
    chosen = {
        "mIoU": [name for name in totals if name > 0],
        "mIoU_t": [name for name in totals if name > 0],
        "mIoU_b": [name for name in totals if 0 < name < counts.first_novel],
        "mIoU_n": [name for name in totals if name >= counts.first_novel],
    }
    name = metric.removesuffix("_meta")
    if name == "pIoU":
        return pooled
    if name == "FB-IoU":
        return (iou[0] + pooled) / 2
    classes = [c for c in chosen[name] if totals[c][2] > 0 or not counts.left_out]
    return sum(iou[c] for c in classes) / len(classes)


class TestValues:
    @pytest.mark.parametrize("metric", ["mIoU", "FB-IoU", "pIoU", "mIoU_meta", "FB-IoU_meta", "pIoU_meta"])
    @pytest.mark.parametrize("left_out", [False, True])
    def test_of_few_shot_segmentation(self, metric: str, left_out: bool) -> None:
        counts = drawn_counts(absent=3, left_out=left_out)
        plain = [plain_metric(counts, metric, seed) for seed in range(SEEDS)]
        assert counts.value(metric) == pytest.approx(sum(plain) / SEEDS, rel=1e-9)

    @pytest.mark.parametrize("metric", ["mIoU_n", "mIoU_b", "mIoU_t", "FB-IoU"])
    def test_of_generalised_segmentation(self, metric: str) -> None:
        counts = drawn_counts(first_novel=5)
        plain = [plain_metric(counts, metric, seed) for seed in range(SEEDS)]
        assert counts.value(metric) == pytest.approx(sum(plain) / SEEDS, rel=1e-9)

    def test_of_what_never_occurs_are_zero(self) -> None:
        counts = drawn_counts()
        counts.counts[:] = 0
        assert [counts.value(name) for name in ("mIoU", "FB-IoU", "pIoU")] == [0, 0, 0]
        nothing_left = EpisodeCounts(**{**counts.__dict__, "left_out": True})
        assert nothing_left.value("mIoU") == 0

    def test_of_single_pixels_show_the_published_epsilon(self) -> None:
        counts = drawn_counts()
        counts.counts[:] = 0
        counts.counts[:, 0, :2] = 1
        lowered = 1 / (1 + 1e-10)
        assert counts.value("FB-IoU") == pytest.approx(lowered, rel=1e-12)
        assert counts.value("pIoU") == pytest.approx(lowered, rel=1e-12)
        assert counts.value("mIoU") == pytest.approx(lowered / (CLASSES - 1), rel=1e-12)

    def test_names(self) -> None:
        few_shot = ["mIoU", "FB-IoU", "pIoU"]
        assert drawn_counts().names() == [*few_shot, *(f"{name}_meta" for name in few_shot)]
        generalised = drawn_counts(first_novel=2)
        without = EpisodeCounts(**{**generalised.__dict__, "meta": np.zeros(0, np.int32)})
        assert without.names() == ["mIoU_n", "mIoU_b", "mIoU_t", "FB-IoU"]


class TestBootstrap:
    @pytest.mark.parametrize("metric", ["mIoU", "FB-IoU", "pIoU_meta"])
    def test_agrees_with_scipy(self, metric: str) -> None:
        counts = drawn_counts(1)

        def mean_over_seeds(first: np.ndarray, second: np.ndarray) -> float:
            return (plain_metric(counts, metric, 0, first) + plain_metric(counts, metric, 1, second)) / 2

        every = np.arange(EPISODES)
        reference = stats.bootstrap(
            (every, every),
            mean_over_seeds,
            n_resamples=600,
            method="percentile",
            vectorized=False,
            random_state=np.random.default_rng(0),
        )
        drawn = counts.resample(metric, 4000)
        assert drawn.shape == (4000,)
        assert drawn.std() == pytest.approx(reference.standard_error, rel=0.15)
        assert bounds(drawn) == pytest.approx(
            tuple(reference.confidence_interval), abs=0.4 * reference.standard_error
        )

    def test_draws_depend_on_hash_and_seed_alone(self) -> None:
        counts = drawn_counts()
        drawn = counts.resample("mIoU", 50)
        np.testing.assert_array_equal(drawn, counts.resample("mIoU", 50, seed=0))
        assert not np.array_equal(drawn, counts.resample("mIoU", 50, seed=1))
        other = EpisodeCounts(**{**counts.__dict__, "hashes": counts.hashes[::-1]})
        assert not np.array_equal(drawn, other.resample("mIoU", 50))

    def test_draws_are_the_same_on_every_machine(self) -> None:
        counts = drawn_counts()
        for number, digits in enumerate((0x0123456789ABCDE, 0xFEDCBA987654321)):
            chosen = np.random.default_rng([3, digits]).integers(EPISODES, size=(4, EPISODES))
            plain = [plain_metric(counts, "pIoU", number, episodes) for episodes in chosen]
            alone = EpisodeCounts(
                **{
                    **counts.__dict__,
                    "hashes": counts.hashes[number : number + 1],
                    "rows": counts.rows[[number]],
                }
                | {"counts": counts.counts[[number]], "meta": counts.meta[[number]]}
            )
            assert alone.resample("pIoU", 4, seed=3) == pytest.approx(plain, rel=1e-9)

    def test_equal_episodes_are_drawn_alike_for_other_methods(self) -> None:
        one, better = drawn_counts(), drawn_counts()
        better.counts[..., 0] = (1.1 * better.counts[..., 0]).astype(np.int32)
        assert np.corrcoef(one.resample("pIoU", 300), better.resample("pIoU", 300))[0, 1] > 0.99

    @pytest.mark.parametrize("block", [1, 2 * EPISODES + 1, 7 * EPISODES])
    def test_blocks_change_nothing(self, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
        whole = drawn_counts().resample("mIoU", 15)
        monkeypatch.setattr(episode_counts, "_BLOCK", block)
        np.testing.assert_allclose(drawn_counts().resample("mIoU", 15), whole, rtol=1e-12)


class TestComparison:
    def stored(self, folder: Path, method: str, counts: EpisodeCounts, fold: int) -> None:
        metrics = [
            {name: plain_metric(counts, name, seed) for name in ("mIoU", "FB-IoU")} for seed in range(SEEDS)
        ]
        seeds = tuple(
            SeedResult(seed=seed, episode_hash=str(counts.hashes[seed]), metrics=metrics[seed])
            for seed in range(SEEDS)
        )
        common = {"backbone": "resnet50", "data_set": "pascal", "shot": 1, "protocol": "bam", "fold": fold}
        result = Result(method=method, seeds=seeds, episodes=EPISODES, seconds=1.0, **common)
        folder.mkdir(exist_ok=True)
        counts.write(counts_path(write_result(folder / file_name(result), result)))

    def test_means_and_intervals_over_folds(self, tmp_path: Path) -> None:
        folds = [drawn_counts(number) for number in range(2)]
        for number, counts in enumerate(folds):
            self.stored(tmp_path, "bam", counts, number)
        (row,) = comparison_table(read_runs([str(tmp_path)]), "mIoU", "FB-IoU", draws=400).rows
        for value, name in zip(row.values[-2:], ("mIoU", "FB-IoU"), strict=True):
            figures = [plain_metric(counts, name, seed) for counts in folds for seed in range(SEEDS)]
            assert value.mean == pytest.approx(100 * np.mean(figures))
            joint = (folds[0].resample(name, 400) + folds[1].resample(name, 400)) / 2
            assert value.interval == pytest.approx(tuple(100 * np.quantile(joint, [0.025, 0.975])))

    def test_differences_in_points(self, tmp_path: Path) -> None:
        pairs = [(drawn_counts(number), drawn_counts(number)) for number in range(2)]
        for number, (one, better) in enumerate(pairs):
            better.counts[..., 0] = (1.05 * better.counts[..., 0]).astype(np.int32)
            self.stored(tmp_path, "bam", one, number)
            self.stored(tmp_path, "msanet", better, number)
        table = difference_table(read_runs([str(tmp_path)]), "pIoU", draws=400)
        assert table.title == "pIoU, paired differences in points, with 95 % intervals"
        assert table.label_columns == ("difference", "shot")
        assert table.value_columns == ("fold0", "fold1", "mean")
        (row,) = table.rows
        values = [better.value("pIoU") - one.value("pIoU") for one, better in pairs]
        drawn = [better.resample("pIoU", 400) - one.resample("pIoU", 400) for one, better in pairs]
        for cell, value, draws in zip(
            row.values, [*values, sum(values) / 2], [*drawn, sum(drawn) / 2], strict=True
        ):
            assert cell.mean == pytest.approx(100 * value)
            assert cell.interval == pytest.approx(tuple(100 * np.quantile(draws, [0.025, 0.975])))

    def test_a_missing_fold_leaves_the_mean_of_differences_open(self, tmp_path: Path) -> None:
        for number in range(2):
            self.stored(tmp_path, "bam", drawn_counts(number), number)
            self.stored(tmp_path, "msanet", drawn_counts(number), number)
        for number in (0, 2):
            self.stored(tmp_path, "pfenet", drawn_counts(number), number)
            self.stored(tmp_path, "hsnet", drawn_counts(number), number)
        table = difference_table(read_runs([str(tmp_path)]), "mIoU", draws=40)
        assert table.value_columns == ("fold0", "fold1", "fold2", "mean")
        known = {row.labels[0]: [value is not None for value in row.values] for row in table.rows}
        assert known == {
            "msanet resnet50 - bam resnet50": [True, True, False, False],
            "pfenet resnet50 - hsnet resnet50": [True, False, True, False],
        }


def test_written_under_its_version(tmp_path: Path) -> None:
    drawn_counts(left_out=True).write(tmp_path / "r.npz")
    with np.load(tmp_path / "r.npz", allow_pickle=False) as stored:
        assert int(stored["version"]) == VERSION == 1  # a change makes all stored counts unreadable
    assert read_counts(tmp_path / "r.npz").left_out is True


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"gone\.npz: cannot be read \(No such file or directory\)"):
        read_counts(tmp_path / "gone.npz")
