"""The folder of a training, from the script: what a start writes, refuses, overwrites and goes on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fewseg.engine.training.loop as training_loop
from fewseg.engine.setup.interrupt import Interrupted
from fewseg.engine.setup.run_path import RUN_CONFIG, RUN_LOG
from fewseg.engine.training.snapshot import BEST, LAST, STATE
from fewseg.util.checkpoint import read_meta
from fewseg.util.config import load_config
from fewseg.util.errors import UserError
from fewseg.util.lock import lock_folder
from train import main

ROOT = Path(__file__).resolve().parents[3]
QUICK = ("arch", "pspnet", "batch_size", "40", "epochs", "1", "print_freq", "1")


@pytest.fixture
def start(config_file):
    """Return a function that runs train.py: ``start("epochs", 2, overwrite=True)``."""

    def run(*opts, overwrite=False):
        flags = ["--overwrite"] if overwrite else []
        given = dict(zip(QUICK[::2], QUICK[1::2], strict=True)) | dict(
            zip(opts[::2], opts[1::2], strict=True)
        )
        pairs = [str(part) for pair in given.items() for part in pair]
        main(["--config", str(config_file), *flags, "--opts", *pairs])

    return run


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def events(folder):
    return sorted((folder / "board").glob("events.*"))


@pytest.mark.parametrize(
    ("opts", "wrong"),
    [
        (("arch", "nonsense"), "nonsense"),
        (("Method.backbone_options.nonsense", 1), "nonsense"),
        (("data_root", "missing"), "missing"),
        (("Train.weight", "missing.safetensors"), "missing.safetensors"),
        (("arch", "bam"), "base.safetensors"),
        (("train_w", 97), "train_w"),
        (("resume", "missing.state.pt"), "missing.state.pt"),
    ],
)
def test_start_that_fails_leaves_nothing(start, tmp_path, opts, wrong):
    with pytest.raises(UserError, match=wrong):
        start(*opts)
    assert not (tmp_path / "run").exists()


def test_finished_run_is_kept_unless_told_otherwise(start, tmp_path):
    start()
    run, before = tmp_path / "run", contents(tmp_path / "run")
    assert before.keys() >= {BEST, LAST, STATE, RUN_CONFIG, RUN_LOG} and len(events(run)) == 1
    with pytest.raises(UserError) as refused:
        start("base_lr", 0.5)
    said = str(refused.value)
    assert str(run) in said and "training that reached epoch 1" in said and "with base_lr 0.001" in said
    assert "resume auto" in said and "--overwrite" in said and "save_path" in said and "\n" not in said
    with pytest.raises(UserError):
        start("Method.backbone_options.width", 32, "resume", "auto")
    with pytest.raises(UserError, match="give one of them"):
        start("resume", "auto", overwrite=True)
    assert contents(run) == before


def test_resuming_a_finished_run_changes_nothing_but_its_log(start, tmp_path, capsys):
    start()
    before = contents(tmp_path / "run")
    start("resume", "auto")
    after = contents(tmp_path / "run")
    assert "nothing left to do after 1 epochs" in capsys.readouterr().out
    assert {name for name in after if after[name] != before.get(name)} == {RUN_LOG}


def test_overwritten_run_leaves_nothing_beside_the_new_one(start, tmp_path, capsys):
    run = tmp_path / "run"
    start()
    old, (old_events,) = contents(run), events(run)
    with pytest.raises(UserError):
        start("Method.backbone_options.nonsense", 1, overwrite=True)
    assert contents(run) == old
    start("evaluate", False, "base_lr", 0.5, overwrite=True)
    assert "overwriting a training that reached epoch 1" in capsys.readouterr().err
    assert not (run / BEST).exists() and (run / LAST).is_file()
    assert events(run) and old_events not in events(run) and len(events(run)) == 1
    assert load_config(run / RUN_CONFIG).Train.base_lr == 0.5
    assert "base_lr 0.001" in (run / RUN_LOG).read_text() and "training pspnet" in (run / RUN_LOG).read_text()


def stop_in_the_first_step(monkeypatch):
    original = training_loop.training_step

    def step(*arguments, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    monkeypatch.setattr(training_loop, "training_step", step)


def test_unfinished_run_is_kept_too_and_goes_on_in_its_folder(start, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_in_the_first_step(patch)
        with pytest.raises(Interrupted):
            start()
    with pytest.raises(UserError, match="holds a training that reached epoch 0"):
        start()
    monkeypatch.chdir(tmp_path)
    time.sleep(1)  # event files are named after the second
    start("resume", run, "save_path", "''")
    assert read_meta(run / LAST)["epoch"] == 1 and not (tmp_path / "exp").exists()
    assert len(events(run)) == 2  # one per start


def test_run_that_goes_on_elsewhere_keeps_its_best(start, tmp_path):
    start("epochs", 1)
    start("resume", tmp_path / "run", "save_path", tmp_path / "other")
    assert (tmp_path / "other" / BEST).read_bytes() == (tmp_path / "run" / BEST).read_bytes()


def test_weights_without_a_state_are_not_overwritten_by_resume_auto(start, tmp_path):
    start()
    (tmp_path / "run" / STATE).unlink()
    with pytest.raises(UserError, match=r"no last\.state\.pt to go on from: begin anew with --overwrite"):
        start("resume", "auto")


def test_start_that_was_killed_before_its_first_weights_stands_in_no_way(start, tmp_path):
    run = tmp_path / "run"
    (run / "board").mkdir(parents=True)
    for name in (RUN_CONFIG, RUN_LOG, "board/events.out"):
        (run / name).write_text("")
    start()
    assert len(events(run)) == 1 and events(run)[0].name != "events.out"


def test_complete_config_starts_the_same_run(start, shapes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start("save_path", "''", "base_lr", 0.01)
    (log,) = (tmp_path / "exp").rglob(RUN_LOG)
    assert log.parent.name.startswith(f"split0_{shapes.name}_batch_size40-base_lr0.01-")
    with pytest.raises(UserError, match=r"holds a training that reached epoch 1 \(best score .*\); go on"):
        main(["--config", str(log.with_name(RUN_CONFIG))])
    main(["--config", str(log.with_name(RUN_CONFIG)), "--opts", "resume", "auto"])
    assert len([*(tmp_path / "exp").rglob(RUN_LOG)]) == 1


def test_complete_config_states_what_the_protocol_decided(start, config_file, tmp_path):
    text = config_file.read_text().replace(", val_size: 65", "")
    config_file.write_text(text)
    start("Data.protocol_options.input_size", 65)
    stored = load_config(tmp_path / "run" / RUN_CONFIG)
    assert stored.Data.val_size == 65 and load_config(config_file).Data.val_size == 473
    start("Data.protocol_options.input_size", 65, "resume", "auto")  # it is the same run
    main(["--config", str(tmp_path / "run" / RUN_CONFIG), "--opts", "resume", "auto"])


def test_running_folder_is_refused_at_once(start, tmp_path, monkeypatch):
    start()
    monkeypatch.setattr("train.build_network", None)  # it does not come so far
    with lock_folder(tmp_path / "run", "training"):
        for flags in ({}, {"overwrite": True}):
            with pytest.raises(UserError, match=r"run: in use: training by process \d+ on .* since"):
                start(**flags)


def test_second_training_is_told_of_the_first(config_file, start, tmp_path):
    command = [
        sys.executable,
        "-u",
        "train.py",
        "--config",
        config_file,
        "--opts",
        *QUICK[:4],
        "epochs",
        "500",
    ]
    first = subprocess.Popen(
        list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert any(line.startswith("epoch 1/500") for line in first.stdout)
        with pytest.raises(UserError, match=rf"in use: training by process {first.pid} on "):
            start("resume", "auto")
    finally:
        first.kill()
        first.communicate()


def test_longer_run_says_how_to_go_on_with_the_shorter_one(start, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    start("save_path", "''")
    (state,) = (tmp_path / "exp").rglob(STATE)
    start("save_path", "''", "epochs", 2, "resume", "auto")
    assert "begins anew" in (said := capsys.readouterr().err)
    assert f"--opts resume {state.parent.relative_to(tmp_path)}" in said
    start("save_path", "''", "epochs", 2, "resume", state.parent)
    assert read_meta(state.with_name(LAST))["epoch"] == 2


def test_run_in_a_folder_of_another_name_is_pointed_out(start, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    start("save_path", "''")
    (state,) = (tmp_path / "exp").rglob(STATE)
    former = state.parent.rename(state.parent.with_name("split0"))
    start("save_path", "''", "resume", "auto")
    said = f"{former.relative_to(tmp_path)} has the same settings: to go on with that, say --opts resume"
    assert said in capsys.readouterr().err and state.is_file()


def test_folder_that_was_taken_meanwhile_is_refused(start, tmp_path, monkeypatch):
    import train

    def slowly(*arguments):
        network = build(*arguments)
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / LAST).write_bytes(b"another's")
        return network

    build = train.build_network
    monkeypatch.setattr(train, "build_network", slowly)
    with pytest.raises(UserError, match="holds a training"):
        start("resume", "auto")
    assert contents(tmp_path / "run") == {LAST: b"another's"}


def test_all_processes_stop_where_the_main_one_is_refused(config_file, tmp_path):
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    with lock_folder(tmp_path / "run", "test"):
        done = subprocess.run(
            [*torchrun, "train.py", "--config", str(config_file), "--opts", *QUICK],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            timeout=120,
        )
    assert done.returncode != 0 and "in use: test by process" in done.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".fewseg.lock"]


def test_a_start_removes_what_a_killed_write_of_its_files_left(start, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in (BEST, LAST, STATE, RUN_CONFIG, "table.md"):
        (run / f".{name}.x1y2.part").write_text("half")
    start()
    assert [path.name for path in run.glob(".*.part")] == [".table.md.x1y2.part"]
