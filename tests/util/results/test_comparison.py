"""Counts of episodes, bootstrap intervals, and which results may be compared."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fewseg.util.errors import ResultError
from fewseg.util.metrics import Counts, IoUMeter
from fewseg.util.results.comparison import comparison_table, difference_table, read_runs, require_comparable
from fewseg.util.results.episode_counts import EpisodeCounts, counts_path, read_counts
from fewseg.util.results.formats import to_csv, to_terminal
from fewseg.util.results.identity import file_name
from fewseg.util.results.result import Result, SeedResult, write_result
from tools.compare import main

EPISODES, CLASSES = 80, 6


def counted(seed: int = 0, skill: float = 0.6, hashes: tuple[str, ...] = ("ab12", "cd34")) -> EpisodeCounts:
    """Return counts of two seeds; episodes are as hard for every skill."""
    hard = np.random.default_rng(7)
    own = np.random.default_rng(seed)
    shape = len(hashes), EPISODES
    rows = np.zeros((*shape, 2), np.int16)
    rows[..., 1] = 1 + hard.integers(CLASSES - 1, size=shape)
    target = hard.integers(200, 400, size=shape)
    share = np.clip(skill + 0.3 * hard.standard_normal(shape) + 0.02 * own.standard_normal(shape), 0, 1)
    hit = (share * target).astype(int)
    foreground = np.stack([hit, target + 20, target], -1)
    background = np.stack([1000 - target, 1020 - hit, 1000 - target], -1)
    counts = np.stack([background, foreground], -2).astype(np.int32)
    return EpisodeCounts(np.array(hashes), rows, counts, np.zeros(0, np.int32), CLASSES, 1, False)


def stored(folder: Path, method: str, counts: EpisodeCounts | None, fold: int = 0, **changes: Any) -> Path:
    """Write a result with its counts."""
    hashes = ["ab12", "cd34"] if counts is None else list(counts.hashes)
    value = 0.5 if counts is None else counts.value("mIoU")
    seeds = [SeedResult(seed=i, episode_hash=h, metrics={"mIoU": value}) for i, h in enumerate(hashes)]
    common = {"backbone": "resnet50", "data_set": "pascal", "shot": 1, "protocol": "bam", "fold": fold}
    common |= {"episodes": EPISODES, "seconds": 1.0, "novel_in_train": "remove"}
    folder.mkdir(parents=True, exist_ok=True)
    result = Result(method=method, seeds=tuple(seeds), **{**common, **changes})
    path = write_result(folder / file_name(result), result)
    if counts is not None:
        counts.write(counts_path(path))
    return path


class TestCounts:
    def test_sums_are_those_of_the_meter(self) -> None:
        counts = counted()
        values: dict[str, list[float]] = {"mIoU": [], "FB-IoU": [], "pIoU": []}
        for seed in range(2):
            meter = IoUMeter(CLASSES)
            for rows, episode in zip(counts.rows[seed], counts.counts[seed], strict=True):
                meter.add(Counts(*torch.from_numpy(episode.T.astype(np.int64))), rows.tolist())
            values["mIoU"].append(meter.mean_iou())
            values["FB-IoU"].append(meter.foreground_background_iou())
            values["pIoU"].append(meter.pooled_iou())
        assert counts.names() == list(values)
        assert {name: counts.value(name) for name in values} == pytest.approx(
            {name: float(np.mean(own)) for name, own in values.items()}
        )

    def test_round_trip_without_pickle(self, tmp_path: Path) -> None:
        counted().write(tmp_path / "r.npz")
        read = read_counts(tmp_path / "r.npz")
        assert read.value("mIoU") == counted().value("mIoU") and read.left_out is False
        with np.load(tmp_path / "r.npz", allow_pickle=False) as arrays:
            assert arrays["counts"].dtype == np.int32

    def test_damaged_files_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / "r.npz"
        counted().write(path)
        whole = path.read_bytes()
        array = io.BytesIO()
        np.save(array, np.zeros(3))
        for content in (whole[:300], b"text", b"", array.getvalue()):
            path.write_bytes(content)
            with pytest.raises(ResultError, match="cannot be read"):
                read_counts(path)
        np.savez(path, version=np.int64(9))
        with pytest.raises(ResultError, match="another version"):
            read_counts(path)

    def test_the_interval_covers_and_narrows_in_pairs(self) -> None:
        one, other = counted(1, 0.6), counted(2, 0.63)
        drawn = [counts.resample("mIoU", 400) for counts in (one, other)]
        assert drawn[0].std() > 0.005 and abs(drawn[0].mean() - one.value("mIoU")) < 0.01
        assert (drawn[1] - drawn[0]).std() < 0.3 * drawn[0].std()
        np.testing.assert_array_equal(drawn[0], one.resample("mIoU", 400))

    def test_classes_that_never_occur(self) -> None:
        counts = counted()
        counts.rows[counts.rows == 2] = 1
        left_out = EpisodeCounts(**{**counts.__dict__, "left_out": True})
        assert left_out.value("mIoU") == pytest.approx(counts.value("mIoU") * (CLASSES - 1) / (CLASSES - 2))


class TestTables:
    def test_means_have_intervals(self, tmp_path: Path) -> None:
        for fold in range(2):
            stored(tmp_path, "bam", counted(fold, hashes=(f"a{fold}", f"b{fold}")), fold)
        (row,) = comparison_table(read_runs([str(tmp_path)]), "mIoU", None, draws=200).rows
        low, high = row.values[-1].interval
        assert low < row.values[-1].mean < high and high - low < 15
        assert row.values[0].interval is None

    def test_rows_without_counts_have_none(self, tmp_path: Path) -> None:
        stored(tmp_path, "bam", None)
        table = comparison_table(read_runs([str(tmp_path)]), "mIoU", None)
        assert table.rows[0].values[-1].interval is None and "[" not in to_terminal(table)

    def test_differences_are_paired(self, tmp_path: Path) -> None:
        for fold in range(2):
            for method, skill in (("bam", 0.6), ("pfenet", 0.65)):
                stored(tmp_path, method, counted(fold, skill, (f"a{fold}", f"b{fold}")), fold)
        table = difference_table(read_runs([str(tmp_path)]), "mIoU", draws=200)
        (row,) = table.rows
        assert row.labels == ("pfenet resnet50 - bam resnet50", "1")
        low, high = row.values[-1].interval
        assert 0 < low < row.values[-1].mean < high < 10
        assert to_csv(table).splitlines()[0].endswith("mean,mean_std,mean_low,mean_high")

    def test_a_difference_between_trainings_names_their_data(self, tmp_path: Path) -> None:
        stored(tmp_path, "bam", counted())
        stored(tmp_path, "bam", counted(1, 0.5), trained_on="coco fold 0")
        runs = read_runs([str(tmp_path)])
        (row,) = difference_table(runs, "mIoU", draws=20).rows
        assert row.labels[0] == "bam resnet50 trained on coco fold 0 - bam resnet50"
        assert comparison_table(runs, "mIoU", None, draws=20).label_columns == ("method", "trained on")

    def test_other_episodes_cannot_be_paired(self, tmp_path: Path) -> None:
        stored(tmp_path, "bam", counted())
        stored(tmp_path, "pfenet", counted(hashes=("ef56", "ab78")))
        assert difference_table(read_runs([str(tmp_path)]), "mIoU") is None

    def test_names_can_be_given(self, tmp_path: Path) -> None:
        first, second = stored(tmp_path / "a", "bam", counted(1)), stored(tmp_path / "b", "bam", counted(2))
        runs = read_runs([f"ours={first}", f"theirs={second.parent}"])
        assert [run.result.method for run in runs] == ["ours", "theirs"]
        assert len(comparison_table(runs, "mIoU", None, draws=40).rows) == 2

    def test_an_existing_path_is_no_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        stored(tmp_path / "lr=0.1", "bam", counted(1))
        stored(tmp_path / "0.1", "pfenet", counted(2))
        assert [run.result.method for run in read_runs(["lr=0.1"])] == ["bam"]
        assert [run.result.method for run in read_runs(["rate=0.1"])] == ["rate"]

    def test_the_bootstrap_draws_a_thousand_times_by_default(self, tmp_path: Path) -> None:
        stored(tmp_path, "bam", counted(1))
        stored(tmp_path, "pfenet", counted(2, 0.65))
        runs = read_runs([str(tmp_path)])
        assert comparison_table(runs, "mIoU", None) == comparison_table(runs, "mIoU", None, draws=1000)
        assert difference_table(runs, "mIoU") == difference_table(runs, "mIoU", draws=1000)

    def test_what_runs_say_about_themselves_is_no_result(self, tmp_path: Path) -> None:
        stored(tmp_path, "bam", counted())
        for name in ("live.json", "finished.json"):
            (tmp_path / name).write_text("{}")
        assert len(read_runs([str(tmp_path)])) == 1

    def test_baselines_are_left_out_unless_named(self, tmp_path: Path) -> None:
        stored(tmp_path, "bam", counted())
        stored(tmp_path / "baselines", "every object", None)
        assert len(read_runs([str(tmp_path)])) == 1
        assert len(read_runs([str(tmp_path), str(tmp_path / "baselines")])) == 2
        stored(tmp_path / "fold0" / "baselines", "largest object", None)
        assert (
            len(read_runs([str(tmp_path)])) == 1 and len(read_runs([str(tmp_path / "fold0/baselines")])) == 1
        )


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"protocol": "hsnet"}, "different protocols: .* has bam, .* has hsnet"),
            ({"protocol_difference": {"min_area": (2048, 0)}}, "different protocols"),
            ({"novel_in_train": "background"}, "different treatments of novel classes"),
            ({"setting": "generalised-final"}, "different settings"),
            ({"annotation": "bbox"}, "different annotations"),
            (
                {"oracle": True},
                "^different results of an oracle and others: .* has no oracle's, .* has an oracle's; ",
            ),
        ],
    )
    def test_unlike_results_need_mixed(self, tmp_path: Path, changes: dict, message: str) -> None:
        stored(tmp_path / "a", "bam", counted())
        stored(tmp_path / "b", "pfenet", counted(), **changes)
        runs = read_runs([str(tmp_path)])
        with pytest.raises(ResultError, match=message):
            require_comparable(runs)
        table = comparison_table(runs, "mIoU", None, draws=40, mixed=True)
        assert len(table.label_columns) == 2  # the method, and the column that tells them apart

    def test_other_episodes_need_mixed(self, tmp_path: Path) -> None:
        stored(tmp_path / "a", "bam", counted())
        stored(tmp_path / "b", "pfenet", counted(hashes=("ef56", "ab78")))
        runs = read_runs([str(tmp_path)])
        with pytest.raises(ResultError, match=r"different episodes: .* fold 0"):
            require_comparable(runs)
        table = comparison_table(runs, "mIoU", None, draws=40, mixed=True)
        assert [row.labels[-1] for row in table.rows] == ["A", "B"]
        assert table.label_columns[-1] == "episode set"

    def test_counts_of_another_result_are_refused(self, tmp_path: Path) -> None:
        path = stored(tmp_path, "bam", counted())
        counted(hashes=("ef56", "ab78")).write(counts_path(path))
        with pytest.raises(ResultError, match="counts other episodes"):
            read_runs([str(path)])

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(ResultError, match="no result files"):
            read_runs([str(tmp_path)])


def test_the_tool_writes_every_format(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    stored(tmp_path / "r", "bam", counted(1))
    stored(tmp_path / "r", "pfenet", counted(2, 0.7))
    stored(tmp_path / "r", "panet", None)
    main([str(tmp_path / "r"), "--draws", "100", "--format", "markdown", "--out", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert "| bam |" in out and "| pfenet resnet50 - bam resnet50 |" in out
    assert "no counts of episodes" in err and "panet" in err
    names = {f"mIoU{end}.{suffix}" for end in ("", "_difference") for suffix in ("txt", "md", "csv", "tex")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    with pytest.raises(ResultError, match="--draws 10"):
        main([str(tmp_path / "r"), "--draws", "10"])
