"""Cleaning removes what a study made and no study names, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import study as script
from fewseg.engine.study.cleaning.copies import keep_copy
from fewseg.engine.study.description.expansion import jobs_of
from fewseg.engine.study.description.jobs import Kind, StudyJobs
from fewseg.engine.study.description.study_file import read_study
from fewseg.engine.study.running.claim import Claim
from fewseg.engine.study.running.records import JobRecord
from fewseg.engine.study.slurm.queue import Queued
from fewseg.util.config.plain_yaml import as_text
from fewseg.util.errors import UserError
from fewseg.util.lock import lock_folder

from .conftest import ROOT
from .made_up import fill

Make = Callable[..., StudyJobs]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def make(tmp_path: Path, root: Path) -> Make:
    """Return what writes a study file, as ``study.py run`` leaves it and its copy, and expands it."""

    def written(name: str, more: str = "", *, copied: bool = True, **grid: object) -> StudyJobs:
        path = tmp_path / f"{name}.yaml"
        axes = {"method": ["bam"], "fold": [0], **grid}
        config = f"config: {ROOT}/config/shapes/{{method}}_resnet18.yaml"
        path.write_text(f"{config}\ngrid: {as_text(axes)}\nfolder: {root}\n{more}\n")
        study = read_study(path)
        if copied:
            keep_copy(study)
        return jobs_of(study)

    return written


def carry_out(jobs: StudyJobs) -> None:
    """Leave behind what the jobs of a study would."""
    fill(jobs)
    for job in jobs.jobs.values():
        record = JobRecord.of(jobs.study.root, job)
        record.begin(job)
        (record.folder / "log.1").write_text("the log of a second node")
        if job.kind is Kind.TEST:
            (job.folder / "pictures/x").mkdir(parents=True, exist_ok=True)
            (job.folder / "pictures/x/episode.png").write_bytes(b"1")
            (job.folder / "test.log").write_text("log")
            (job.folder / "report.html").write_text("page")
        elif job.kind is Kind.MINE:
            mined_files(job.folder)
        else:
            run_files(job.folder)


def run_files(run: Path) -> None:
    (run / "board").mkdir(parents=True, exist_ok=True)
    for name in ("train.log", "config.yaml", "best.safetensors", "last.state.pt", ".fewseg.lock"):
        (run / name).write_bytes(b"1" * 1000)
    (run / "board/events.out.tfevents.1.host.2").write_bytes(b"1")


def mined_files(folder: Path) -> None:
    (folder / "labels").mkdir(parents=True, exist_ok=True)
    for name in ("labels/a.png", "centres.npy", "mined.json"):
        (folder / name).write_text("{}")


def everything(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if path.is_file() and "studies" not in path.parts}


def clean(jobs: StudyJobs | None = None, *more: str) -> None:
    script.main(["clean", *([str(jobs.study.path)] if jobs else []), "--yes", *more])


def trainings(jobs: StudyJobs) -> list[Path]:
    return [job.folder for job in jobs.jobs.values() if job.kind is Kind.TRAIN]


def test_what_a_study_no_longer_names_is_removed(make: Make, root: Path, capsys) -> None:
    carry_out(make("table"))
    kept = everything(root)
    carry_out(make("table", method=["bam", "panet"], seed=[7]))
    assert len(everything(root)) > len(kept) + 10
    jobs = make("table")
    clean(jobs)
    assert everything(root) == kept
    assert not list(root.glob("shapes/panet*"))
    assert len([*(root / "jobs").iterdir()]) == len(jobs.jobs)
    clean(jobs)
    assert capsys.readouterr().out.endswith(f"{root}: nothing to remove\n")


def test_other_studies_of_the_folder_keep_their_runs(make: Make, root: Path) -> None:
    carry_out(make("other", method=["panet"]))
    carry_out(make("table", fold=[0, 1]))
    both = everything(root)
    clean(make("table", copied=False, fold=[0, 1]))
    assert everything(root) == both
    clean(make("table", copied=False))  # the file as it is now stands for its copy
    left = {path.parent.name for path in root.rglob("train.log")}
    assert left == {"split0", "split0_shot1"} | {
        run.name for run in trainings(make("other", method=["panet"]))
    }
    assert len([*root.rglob("panet*")]) == 1


def test_results_that_no_study_names_go_alone(make: Make, root: Path, capsys) -> None:
    carry_out(make("table"))
    kept = everything(root)
    wider = make("table", test_shot=[1, 5])
    carry_out(wider)
    test = next(job for job in wider.jobs.values() if job.kind is Kind.TEST)
    names = {path.name for path in test.folder.glob("*.json")}
    assert len(names) == 2
    with lock_folder(test.folder / "pictures/x", "testing"):
        clean(make("table"))
    assert {path.name for path in test.folder.glob("*.json")} == names
    capsys.readouterr()
    clean(make("table"))
    assert capsys.readouterr().out.startswith("remove  result ")
    left = {path for path in everything(root) if path.name != ".fewseg.lock" and "tables" not in path.parts}
    assert left == {path for path in kept if path.name != ".fewseg.lock"}
    assert len([*test.folder.glob("*.json")]) == 1
    assert all(name not in (test.folder / "report.html").read_text() for name in names)


def test_mined_labels_that_no_study_names_go_alone(make: Make, root: Path, capsys) -> None:
    def mining(clusters: int) -> StudyJobs:
        return make("table", f"mining: {{clusters: {clusters}}}", method=["mlc-reconstruction"])

    carry_out(mining(40))
    kept = everything(root)
    other = mining(20)
    mined = next(job.folder for job in other.jobs.values() if job.kind is Kind.MINE)
    carry_out(other)
    own = mined.with_name("mined")
    mined_files(own)
    capsys.readouterr()
    clean(mining(40))
    said = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert said[:3] == [["remove", "run"], ["remove", "labels"], ["remove", "record"]]
    assert not mined.exists()
    assert everything(root) == kept | {path for path in own.rglob("*") if path.is_file()}


def test_hand_made_runs_and_results_are_kept_and_said(make: Make, root: Path, capsys) -> None:
    carry_out(make("table", fold=[0, 1]))
    own = root / "shapes/jobs/split3_shot1"
    run_files(own)
    second = trainings(make("table", fold=[0, 1]))[1]
    result = next((second / "results").glob("*.json"))
    text = result.read_text().replace('"key":"', '"key":"0')
    by_hand = result.with_name("by_hand.json")
    by_hand.write_text(text)
    mined_files(second / "mined_by_hand")
    clean(make("table"))
    said = capsys.readouterr().out
    assert f"kept    not made by a study: {own}\n" in said
    assert f"kept    not made by a study: {by_hand}\n" in said
    assert (own / "best.safetensors").is_file()
    assert by_hand.read_text() == text
    assert {path.name for path in second.iterdir()} == {"results", "mined_by_hand"}
    assert len([*(second / "mined_by_hand").rglob("*.*")]) == 3


def test_files_of_the_user_are_kept(make: Make, root: Path, tmp_path: Path, capsys) -> None:
    carry_out(make("table", fold=[0, 1]))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "best.safetensors").write_text("not ours")
    run = trainings(make("table", fold=[0, 1]))[1]
    (run / "notes.txt").write_text("mine")
    (run / "board/link").symlink_to(elsewhere)
    clean(make("table"))
    assert {path.name for path in run.rglob("*")} == {"notes.txt", "board", "link"}
    assert (elsewhere / "best.safetensors").read_text() == "not ours"
    assert f"kept    not made by a study: {run / 'notes.txt'}\n" in capsys.readouterr().out


def test_locked_and_claimed_runs_are_kept_with_their_records(make: Make, root: Path, capsys) -> None:
    wide = make("table", fold=[0, 1, 2])
    carry_out(wide)
    make("table")
    _, second, third = trainings(wide)
    record = next(JobRecord.of(root, job) for job in wide.jobs.values() if job.folder == third)
    claim = Claim.take(record.folder)
    assert claim is not None
    pictures = second / "results/pictures/x"
    with lock_folder(pictures, "testing"):
        clean(make("table"))
    assert (second / "best.safetensors").is_file() and (third / "best.safetensors").is_file()
    assert record.made() is not None
    said = capsys.readouterr().out
    assert f"kept    in use: {second}\n" in said and f"kept    in use: {third}\n" in said
    assert f"kept    belongs to a job at work: {record.folder}\n" in said
    claim.release()
    clean(make("table"))
    assert not second.exists() and not third.exists() and not record.folder.exists()


def test_jobs_in_the_queue_of_a_cluster_are_kept(make: Make, root: Path, monkeypatch) -> None:
    wide = make("table", fold=[0, 1, 2])
    carry_out(wide)
    _, second, third = trainings(wide)
    records = {job.folder: JobRecord.of(root, job) for job in wide.jobs.values()}
    records[second].submitted("12_0")
    records[third].submitted("12_1")
    monkeypatch.setattr(
        "fewseg.engine.study.cleaning.leftovers.current_queue", lambda: {"12_0": Queued("PENDING", "None")}
    )
    clean(make("table"))
    assert second.exists() and records[second].folder.exists()
    assert not third.exists() and not records[third].folder.exists()


def test_run_that_starts_while_the_question_stands_is_kept(make: Make, monkeypatch) -> None:
    wide = make("table", fold=[0, 1])
    carry_out(wide)
    jobs = make("table", copied=False)
    second = trainings(wide)[1]

    def yes() -> bool:
        make("later", fold=[1])
        return True

    monkeypatch.setattr(script, "confirmed", yes)
    script.main(["clean", str(jobs.study.path)])
    assert (second / "best.safetensors").is_file()


def test_what_cannot_be_removed_is_said(make: Make, root: Path, monkeypatch, capsys) -> None:
    wide = make("table", fold=[0, 1])
    carry_out(wide)
    run = trainings(wide)[1]

    def refused(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refused)
        clean(make("table"))
    assert f"kept    cannot be removed (Operation not permitted): {run}\n" in capsys.readouterr().out
    assert (run / "best.safetensors").is_file()
    clean(make("table"))  # its record has not been removed either
    assert not run.exists()


def test_run_that_is_a_link_out_of_the_folder_is_kept(make: Make, root: Path, tmp_path: Path) -> None:
    wide = make("table", fold=[0, 1])
    carry_out(wide)
    run = trainings(wide)[1]
    outside = tmp_path / "disk"
    os.rename(run, outside)
    run.symlink_to(outside)
    clean(make("table"))
    assert (outside / "best.safetensors").is_file()


def test_without_a_terminal_or_without_yes_nothing_is_removed(
    make: Make, root: Path, capsys, monkeypatch
) -> None:
    carry_out(make("table", fold=[0, 1]))
    before = everything(root)
    jobs = make("table")
    script.main(["clean", str(jobs.study.path)])
    said = capsys.readouterr()
    assert "no terminal to ask at; give --yes" in said.err
    assert "nothing was removed" in said.out and "total   " in said.out
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    for answer in ("", "n", "no"):
        monkeypatch.setattr("builtins.input", lambda prompt, answer=answer: answer)
        script.main(["clean", str(jobs.study.path)])
        assert everything(root) == before
    monkeypatch.setattr("builtins.input", lambda prompt: "y")
    script.main(["clean", str(jobs.study.path)])
    assert everything(root) < before


def test_study_that_cannot_be_expanded_stops_it(make: Make, root: Path, capsys) -> None:
    carry_out(make("table", fold=[0, 1]))
    before = everything(root)
    copy = root / "studies/table/study.yaml"
    copy.write_text(copy.read_text().replace("_resnet18.yaml", "_gone.yaml"))
    other = make("other")
    with pytest.raises(
        UserError, match=r"studies/table/study.yaml: config: no such file.* to give the study up$"
    ):
        clean(other)
    copy.write_text(copy.read_text().replace("_gone.yaml", "_resnet18.yaml").replace(f"{root}", "exp"))
    with pytest.raises(UserError, match=r"study.yaml: is a study of exp, not of "):
        clean(other)
    assert everything(root) == before


def test_default_folder_is_cleaned_by_the_copies_alone(
    make: Make, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^exp: no study was run there .* name the study files"):
        clean()


def test_two_studies_of_one_name(make: Make, root: Path, tmp_path: Path) -> None:
    first = make("table").study
    (tmp_path / "more").mkdir()
    second = tmp_path / "more/table.yaml"
    second.write_text(first.path.read_text())
    keep_copy(read_study(second))  # the same study of another person
    second.write_text(first.path.read_text().replace("[0]", "[0, 1]"))
    with pytest.raises(
        UserError, match=r"studies/table: belongs to another study of the same name, .*/table.yaml"
    ):
        keep_copy(read_study(second))
    first.path.unlink()
    keep_copy(read_study(second))  # the file was moved
    assert "[0, 1]" in (root / "studies/table/study.yaml").read_text()
