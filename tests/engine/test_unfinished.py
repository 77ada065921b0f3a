"""A test that is killed or stopped goes on, and ends with the digits and files of an undisturbed one."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch._dynamo  # an optimiser would load it in every process

from fewseg.engine.evaluation.tally import Tally
from fewseg.engine.setup.interrupt import Interrupted
from fewseg.engine.setup.weights import describe
from fewseg.model.fewshot import FewShotModel
from fewseg.util import live
from fewseg.util.checkpoint import save_checkpoint
from fewseg.util.live import LIVE, read_live
from fewseg.util.results import partial_counts
from fewseg.util.results.archive import read_archive, write_archive
from tests.engine.evaluation.test_encode_once import opened

ADAPTED = ("adapt", "eftnet", "ft_number", "1", "seeds", "[1]")
KINDS = {
    "few-shot": (["--untrained"], ()),
    "generalised": (["--generalized"], ()),
    "adapted": ([], ADAPTED),
    "batch-dependent": ([], ()),
    "two numbers of shots": (["--shots", "1", "2"], ("Method.options.shot_weights", "uniform")),
}


def shorten(path: Path) -> None:
    """Remove an episode from the counts."""
    arrays = read_archive(path)
    write_archive(path, {**arrays, "0 final": arrays["0 final"][:-1]})


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "changed": lambda path: path.write_bytes(path.read_bytes()[:200] + b"!" + path.read_bytes()[201:]),
    "shorter": shorten,
}

Run = Callable[..., list[int]]


@pytest.fixture(autouse=True)
def _always_kept(monkeypatch):
    monkeypatch.setattr(partial_counts, "SECONDS", 0.0)


@pytest.fixture
def trained(configure, tmp_path):
    """Return a function that writes the checkpoint of a model that is not sure of anything."""

    def write(seed: int = 0) -> None:
        torch.manual_seed(seed)
        model, episodes = opened(configure)
        description = describe(configure("bam"), episodes.fold.classes)
        save_checkpoint(tmp_path / "bam1.safetensors", model.state_dict(), description)

    return write


@pytest.fixture
def run(script, trained, command, tmp_path, monkeypatch) -> Run:
    """Return a function that starts test.py in processes of its own, and returns their ids."""
    trained()

    def start(
        kind: str, out: str, processes: int = 1, kill_after: int | None = None, episodes: int = 4
    ) -> list[int]:
        given, opts = KINDS[kind]
        weight = ["--weight", str(tmp_path / "bam1.safetensors")]
        line = [*command(*given, *weight, "--out", tmp_path / out, episodes=episodes), *opts]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]

        def work(rank: int) -> None:
            if kind == "batch-dependent":
                monkeypatch.setattr(FewShotModel, "batch_dependent", True)
            if kill_after is not None:
                die_after(kill_after, monkeypatch)
            if processes > 1:
                group = {"WORLD_SIZE": processes, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
                os.environ |= {"MASTER_ADDR": "127.0.0.1", **{k: str(v) for k, v in group.items()}}
            script.main(line)

        return [in_a_process(lambda rank=rank: work(rank)) for rank in range(processes)]

    return start


def in_a_process(work: Callable[[], object]) -> int:
    """Run ``work`` in a process of its own; return its id. A fork saves the seconds of loading torch."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setsid()
        work()
        status = 0
    except Exception as failure:
        sys.stderr.write(f"{type(failure).__name__}: {failure}\n")
        sys.stderr.flush()
    finally:
        os._exit(status)


def die_after(episodes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process kill itself when it has counted so many episodes."""
    store, counted = Tally.store, []

    def store_or_die(tally, *arguments):
        if len(counted) == episodes:
            os.kill(os.getpid(), signal.SIGKILL)
        counted.append(arguments)
        store(tally, *arguments)

    monkeypatch.setattr(Tally, "store", store_or_die)


def wait_for_kill(children: list[int]) -> None:
    """Wait until one process is killed, and the others too or by the loss of that one."""
    ends = [os.waitpid(child, 0)[1] for child in children]
    assert all(ends) and signal.SIGKILL in map(os.WTERMSIG, ends)


def all_finish(children: list[int]) -> None:
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * len(children)


def killed(child: int, after: float) -> bool:
    """Kill a process after so many seconds; return whether it still ran."""
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def content(folder: Path) -> dict[str, object]:
    """Return what a folder of results says: results without their times, counts, and pictures."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*shot*.json")):
        found[str(path.relative_to(folder))] = {**json.loads(path.read_text()), "seconds": 0}
    for path in folder.glob("*.npz"):
        found[path.name] = {name: array.tolist() for name, array in read_archive(path).items()}
    for path in folder.rglob("*.png"):
        found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def assert_same(folder: Path, whole: Path) -> None:
    assert content(folder) == content(whole)
    metrics = [result["mean"] for name, result in content(whole).items() if name.endswith(".json")]
    assert any(0 < value < 1 for values in metrics for value in values.values())
    assert not (folder / "partial").exists() and not (folder / LIVE).exists()


def said(folder: Path) -> str:
    return (folder / "test.log").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_test_ends_the_same(run, tmp_path, kind):
    all_finish(run(kind, "whole"))
    wait_for_kill(run(kind, "parts", kill_after=2))
    assert not [*(tmp_path / "parts").glob("*shot*.json")]
    wait_for_kill(run(kind, "parts", kill_after=1))
    all_finish(run(kind, "parts"))
    assert_same(tmp_path / "parts", tmp_path / "whole")
    assert "going on after 2 of " in said(tmp_path / "parts")


def test_shots_tested_together_give_what_they_give_alone(run, script, command, tmp_path):
    all_finish(run("two numbers of shots", "together", 2))
    _, opts = KINDS["two numbers of shots"]
    for shot in ("2", "1"):
        given = ["--shots", shot, "--weight", tmp_path / "bam1.safetensors", "--out", tmp_path / "alone"]
        script.main([*command(*given, episodes=4), *opts])
    assert content(tmp_path / "together") == content(tmp_path / "alone")
    assert "share the encodings" in said(tmp_path / "together")
    assert "share the encodings" not in said(tmp_path / "alone")


def test_any_number_of_processes_gives_and_goes_on_to_the_same_counts(run, tmp_path):
    all_finish(run("few-shot", "whole", episodes=6))
    for before, after in ((1, 4), (4, 2)):
        folder = f"{before} then {after}"
        wait_for_kill(run("few-shot", folder, before, kill_after=2, episodes=6))
        all_finish(run("few-shot", folder, after, episodes=6))
        assert_same(tmp_path / folder, tmp_path / "whole")
        assert "going on after" in said(tmp_path / folder)
    for processes in (2, 4):
        all_finish(run("few-shot", str(processes), processes, episodes=6))
        assert_same(tmp_path / str(processes), tmp_path / "whole")


def test_a_stopped_test_says_how_to_go_on(script, trained, command, tmp_path, monkeypatch):
    trained()
    add = Tally.store

    def add_and_ask(tally, *arguments):
        add(tally, *arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Tally, "store", add_and_ask)
        patch.setattr(partial_counts, "SECONDS", 3600.0)
        with pytest.raises(
            Interrupted, match="stopped by SIGTERM; the counts are kept, start the test again"
        ):
            script.main(command())
    assert len([*(tmp_path / "out" / "partial").rglob("*.npz")]) == 1
    script.main(command())
    assert "going on after" in said(tmp_path / "out") and len([*(tmp_path / "out").glob("*shot*.json")]) == 1


def test_a_test_says_how_far_it_is(script, trained, command, tmp_path, monkeypatch):
    trained()
    told, add = [], Tally.store

    def add_and_read(tally, *arguments):
        add(tally, *arguments)
        told.append(read_live(tmp_path / "out"))

    monkeypatch.setattr(Tally, "store", add_and_read)
    monkeypatch.setattr(live, "_EVERY", 0.0)
    script.main(command())
    assert [facts["episode"] for facts in told] == [1, 2, 3, 4, 5, 6]
    assert {(facts["work"], facts["episodes"]) for facts in told} == {("testing", 6)}
    assert all(facts["seconds_an_episode"] > 0 for facts in told)


def test_counts_of_other_weights_are_not_taken(run, trained, tmp_path):
    wait_for_kill(run("few-shot", "out", kill_after=2))
    (kept,) = (tmp_path / "out" / "partial").rglob("*.npz")
    trained(seed=1)
    all_finish(run("few-shot", "out"))
    all_finish(run("few-shot", "whole"))
    assert "going on after" not in said(tmp_path / "out") and kept.is_file()
    trained()
    all_finish(run("few-shot", "out"))
    all_finish(run("few-shot", "whole"))
    assert "going on after 2 of 8" in said(tmp_path / "out") and not kept.parent.parent.exists()
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_damaged_counts_are_counted_anew(run, tmp_path):
    all_finish(run("few-shot", "whole"))
    for name, damage in DAMAGES.items():
        folder = tmp_path / name
        wait_for_kill(run("few-shot", name, kill_after=2))
        (kept,) = (folder / "partial").rglob("*.npz")
        damage(kept)
        all_finish(run("few-shot", name))
        assert_same(folder, tmp_path / "whole")
        assert "going on after" not in said(folder)
        assert f"{kept}: cannot be read" in said(folder) or "counts of another test are left out" in said(
            folder
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments(run, tmp_path, request, kind):
    begin = time.monotonic()
    all_finish(run(kind, "whole", episodes=20))
    seconds = time.monotonic() - begin
    draw, kills, number = random.Random(kind), 0, 0
    while kills < request.config.getoption("--kills"):
        (child,) = run(kind, f"parts{number}", episodes=20)
        if killed(child, draw.uniform(0, seconds)):
            kills += 1
        else:
            assert_same(tmp_path / f"parts{number}", tmp_path / "whole")
            number += 1
    all_finish(run(kind, f"parts{number}", episodes=20))
    assert_same(tmp_path / f"parts{number}", tmp_path / "whole")
