"""Testing several runs: looked up first, written one by one, never measured twice, never replaced unseen."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fewseg.engine.setup.run_path import result_key
from fewseg.util.checkpoint import file_hash
from fewseg.util.errors import CheckpointError, UserError
from fewseg.util.lock import lock_folder
from fewseg.util.results.folder import EARLIER, ResultFolder
from fewseg.util.results.result import read_result, write_result
from tests.engine.conftest import ARCHS

ROOT = Path(__file__).resolve().parents[2]


def written(folder: Path) -> dict[str, int]:
    """Return the result files of a folder with the times of their writing."""
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("*shot*.json"))}


def said(folder: Path) -> str:
    return (folder / "test.log").read_text()


def column(path: Path, name: str) -> list[str]:
    """Return a column of a table."""
    return [row[name] for row in csv.DictReader(path.read_text().splitlines())]


def start(arguments: list[str], launcher: tuple[str, ...] = ("-u",)) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, *launcher, "test.py", *arguments]
    return subprocess.Popen(line, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


class TestLookedUpFirst:
    def test_a_missing_checkpoint_stops_the_test_before_the_first_run(
        self, script, weights, command, tmp_path
    ):
        weights(1)
        with pytest.raises(CheckpointError, match=r"bam5.safetensors: no such file"):
            script.main(command("--shots", "1", "5"))
        assert not (tmp_path / "out").exists()

    def test_keys_without_effect_are_told_once(self, script, command, capsys):
        with pytest.raises(CheckpointError):
            script.main([*command("--shots", "1", "5"), "merge", "base", "ignore_label", "0"])
        lines = [line for line in capsys.readouterr().out.splitlines() if "has no effect" in line]
        assert [line.partition(": ")[0] for line in lines] == ["--opts merge", "--opts ignore_label"]

    def test_so_do_weights_that_do_not_fit(self, script, weights, command, tmp_path):
        weights(1)
        weights(5).write_bytes(weights(1, "pfenet").read_bytes())
        with pytest.raises(CheckpointError, match=r"bam5.safetensors: is of arch pfenet, but arch bam"):
            script.main(command("--shots", "1", "5"))
        assert not (tmp_path / "out").exists()

    def test_so_does_a_missing_manifest(self, script, weights, command, tmp_path):
        weights(1)
        with pytest.raises(UserError, match=r"missing.jsonl"):
            script.main(command("--episodes-file", tmp_path / "missing.jsonl"))
        assert not (tmp_path / "out").exists()


class TestInterrupted:
    def test_a_failure_in_the_second_run_leaves_the_first(
        self, script, weights, command, tmp_path, monkeypatch
    ):
        weights(1), weights(2)
        folder, measure, done = tmp_path / "out", script.measure_plans, []

        def fails_later(plans, *arguments):
            if done:
                raise UserError("the disk is gone")
            done.append(plans)
            return measure(plans, *arguments)

        monkeypatch.setattr(script, "measure_plans", fails_later)
        with pytest.raises(UserError, match="the disk is gone"):
            script.main(command("--shots", "1", "2"))
        (first,) = written(folder).items()
        stem = first[0].removesuffix(".json")
        assert "_1shot_2x3_" in stem and (folder / f"{stem}.npz").is_file()
        assert len([*(folder / "pictures" / stem).glob("*.png")]) == 1
        assert "bam" in next((folder / "tables").rglob("mIoU.txt")).read_text()
        assert f"pictures/{stem}/episode_000.png" in (folder / "report.html").read_text()

        monkeypatch.setattr(script, "measure_plans", measure)
        script.main(command("--shots", "1", "2"))
        after = written(folder)
        assert len(after) == 2 and after[first[0]] == first[1]
        assert said(folder).count("fold 0, 1-shot: tested before") == 1
        assert f"{folder / first[0]} is read. --again" in said(folder)
        (table,) = (folder / "tables").rglob("mIoU.csv")
        assert column(table, "method")[:2] == ["bam", "bam"] and column(table, "shot")[:2] == ["1", "2"]

        script.main(command("--shots", "1", "--again"))
        assert written(folder)[first[0]] > first[1] and written(folder).keys() == after.keys()
        assert not (folder / EARLIER).exists()

    def test_a_kill_in_the_second_run_leaves_the_first(self, weights, command, tmp_path):
        weights(1), weights(2)
        folder = tmp_path / "out"
        killed = start(command("--shots", "1", "2"))
        while not written(folder):
            assert killed.poll() is None, killed.stderr.read()
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        ((name, when),) = written(folder).items()
        again = start(command("--shots", "1", "2"))
        _, error = again.communicate(timeout=300)
        assert again.returncode == 0, error
        assert len(written(folder)) == 2 and written(folder)[name] == when
        assert "fold 0, 1-shot: tested before" in said(folder)


def test_what_two_processes_measured_is_read_by_one(script, weights, command, tmp_path):
    weights(1)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    together = start(command(), torchrun)
    _, error = together.communicate(timeout=300)
    assert together.returncode == 0, error
    before = written(tmp_path / "out")
    script.main(command())
    assert written(tmp_path / "out") == before and len(before) == 1
    assert (
        said(tmp_path / "out").count("testing fold 0") == said(tmp_path / "out").count("tested before") == 1
    )


class TestSideBySide:
    def test_a_short_check_leaves_the_full_result(self, script, weights, command, tmp_path):
        weights(1)
        folder = tmp_path / "out"
        script.main(command())
        full = written(folder)
        script.main(command("--seeds", "7", episodes=2))
        assert full.items() < written(folder).items()
        short = next(name for name in written(folder) if name not in full)
        assert "_1shot_1x2_seeds7_" in short
        assert len([*(folder / "tables").rglob("mIoU.md")]) == 2
        assert (folder / "report.html").read_text().count("<h1>") == 2
        assert len([*(folder / "pictures").rglob("*.png")]) == 2

    def test_a_second_method_stands_in_the_same_table(self, script, weights, command, tmp_path):
        weights(1), weights(1, "pfenet")
        folder = tmp_path / "out"
        script.main(command("--untrained"))
        script.main(command("--untrained", arch="pfenet"))
        methods = [
            "bam",
            "pfenet",
            "every object",
            "support mask copied",
            "untrained bam",
            "untrained pfenet",
        ]
        (table,) = (folder / "tables").rglob("mIoU.csv")
        assert column(table, "method") == methods
        (alone,) = (folder / "tables").rglob("mIoU_meta.csv")  # of bam, since pfenet is nothing else
        assert column(alone, "method") == ["bam", "untrained bam"]
        page = (folder / "report.html").read_text()
        pictures = [*(folder / "pictures").rglob("*.png")]
        assert len(pictures) == 2 and all(str(p.relative_to(folder)) in page for p in pictures)
        assert len([*folder.glob("*.npz")]) == 2

    def test_other_weights_are_measured_and_the_earlier_result_is_kept(
        self, script, weights, command, tmp_path
    ):
        folder = tmp_path / "out"
        weights(1)
        script.main(command())
        (first,) = folder.glob("*.json")
        before = json.loads(first.read_text())
        weights(1, seed=1)
        script.main(command())
        after = json.loads(first.read_text())
        assert after["checkpoint_hash"] != before["checkpoint_hash"] and "tested before" not in said(folder)
        (kept,) = (folder / EARLIER).glob("*.json")
        assert json.loads(kept.read_text()) == before and kept.with_suffix(".npz").is_file()
        assert len([*(folder / EARLIER / "pictures" / kept.stem).glob("*.png")]) == 1
        assert f"to {kept}" in said(folder)

    def test_checkpoints_of_one_config_have_results_of_their_own(self, script, weights, command, tmp_path):
        folder, others = tmp_path / "out", {"pfenet1": weights(1, "pfenet")}
        for seed, name in enumerate(("best", "last", "mine"), 1):
            others[name] = tmp_path / f"{name}.safetensors"
            others[name].write_bytes(weights(2, "pfenet", seed).read_bytes())
        weights(2, "pfenet")
        script.main(command("--shots", "2", arch="pfenet"))
        for path in others.values():
            script.main(command("--shots", "2", "--weight", path, arch="pfenet"))
        script.main(command("--shots", "2", "--weight", others["mine"], "--again", arch="pfenet"))
        results = ResultFolder(folder).results().values()
        assert len(results) == 5 and not (folder / EARLIER).exists()
        by_stem = {Path(result.checkpoint).stem: result.variant for result in results}
        marks = {stem: variant.removeprefix(by_stem["pfenet2"]) for stem, variant in by_stem.items()}
        assert marks == {
            **{"pfenet2": "", "pfenet1": "_trained1shot", "last": "_last"},
            **{name: f"_weights_{file_hash(others[name])[:8]}" for name in ("best", "mine")},
        }
        (table,) = (folder / "tables").rglob("mIoU.csv")
        assert len(set(column(table, "run")[:5])) == 5

    def test_baselines_of_other_episodes_are_kept(self, script, weights, command, shapes, tmp_path):
        weights(1)
        names = (shapes / "ImageSets/Segmentation/train.txt").read_text().splitlines()
        lists = [tmp_path / "all.txt", tmp_path / "some.txt"]
        for path, part in zip(lists, (names, names[:-20]), strict=True):
            path.write_text("\n".join(part) + "\n")
            script.main([*command(), "val_list", str(path)])
            script.main([*command("--again"), "val_list", str(path)])
        folder = ResultFolder(tmp_path / "out")
        episodes = {result.episode_hash for result in folder.results().values()}
        baselines = [result.episode_hash for result in folder.baselines.results().values()]
        assert len(episodes) == 2 and sorted(baselines) == sorted([*episodes] * 2)
        assert not (folder.baselines.path / EARLIER).exists()

    def test_a_result_under_its_former_name_is_recognised(self, script, weights, command, tmp_path):
        weights(1)
        folder = tmp_path / "out"
        script.main(command())
        (first,) = folder.glob("*.json")
        former = first.rename(folder / "bam_resnet18_shapes_bam_fold0_1shot.json")
        former.write_text(former.read_text().replace('"variant"', '"unknown"'))
        script.main(command())
        assert [*folder.glob("*.json")] == [former] and f"{former} is read" in said(folder)

    def test_results_have_the_key_of_the_test_and_earlier_ones_get_it(
        self, script, weights, command, tmp_path
    ):
        weights(1)
        script.main(command())
        (first,) = (tmp_path / "out").glob("*.json")
        result = read_result(first)
        (config,) = script.runs_of(script.parse_arguments(command()))
        assert result.key == result_key(config) and len(result.key) == 12
        baselines = ResultFolder(tmp_path / "out").baselines.results().values()
        assert [baseline.key for baseline in baselines] == [None, None]
        write_result(first, result.model_copy(update={"key": None}))
        script.main(command())
        assert read_result(first) == result and "tested before" in said(tmp_path / "out")


class TestAtTheSameTime:
    def test_an_equal_test_is_refused(self, script, weights, command, tmp_path):
        weights(1)
        folder = tmp_path / "out"
        script.main(command())
        (first,) = written(folder)
        with (
            lock_folder(folder / "pictures" / first.removesuffix(".json"), "testing"),
            pytest.raises(UserError, match=rf"testing by process {os.getpid()} on .* since"),
        ):
            script.main(command())

    def test_two_methods_write_into_one_folder(self, weights, command, tmp_path):
        weights(1), weights(1, "pfenet")
        tests = [start(command(arch=arch)) for arch in ARCHS]
        for test in tests:
            _, error = test.communicate(timeout=300)
            assert test.returncode == 0, error
        (table,) = (tmp_path / "out" / "tables").rglob("mIoU.csv")
        assert column(table, "method")[:2] == list(ARCHS)


def test_results_go_where_the_weights_are(script, weights, command, shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "exp" / "shapes" / "bam_resnet18" / "split0_shot1"
    folder.mkdir(parents=True)
    weights().rename(folder / "best.safetensors")  # in a folder without a config, as older runs have it
    given = command("--episodes", 2)
    for flag in ("--out", "--weight"):
        del given[given.index(flag) : given.index(flag) + 2]
    script.main([*given, "save_path", "''"])
    assert list((folder / "results").glob("bam_*.json"))
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
