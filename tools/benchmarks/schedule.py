"""The order of the jobs of a study, over many cards, with a clock in place of the jobs."""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path

from fewseg.engine.study.description.expansion import jobs_of
from fewseg.engine.study.description.jobs import Kind, StudyJobs
from fewseg.engine.study.description.study_file import read_study
from fewseg.engine.study.progress.simulation import Simulation, least_seconds, simulate

FIELD = Path("config/studies/field.yaml")

HOURS = {Kind.BASE: (2, 10), Kind.TRAIN: (1, 20), Kind.MINE: (0.5, 2), Kind.TEST: (0.2, 2)}
"""The least and the greatest duration of a job of every kind, in hours."""


SCENARIOS = {
    "durations known": (1.0, False),
    "known within a factor of 3": (3.0, False),
    "nothing known": (None, False),
    "factor of 3, some fail": (3.0, True),
}
"""Name -> the greatest factor between the expected and the real duration of a job, and whether jobs fail."""


@dataclass(frozen=True)
class Durations:
    """Drawn durations of jobs, uniform between the bounds in ``HOURS``.

    Attributes:
        seconds: key -> how long a job takes.
        expected: key -> how long it was expected to take.
        failing: keys of the jobs that fail.
    """

    seconds: dict[str, float]
    expected: dict[str, float]
    failing: frozenset[str]


def draw_durations(jobs: StudyJobs, seed: int, failures: float, factor: float | None) -> Durations:
    """Draw the durations of jobs.

    Args:
        jobs: the jobs.
        seed: of the draws.
        failures: the share of the jobs that fail.
        factor: the greatest factor between the expected and the real duration of a job; None: every job is
            expected to take as long as any other.
    """
    rng = random.Random(seed)
    seconds = {key: 3600 * rng.uniform(*HOURS[job.kind]) for key, job in jobs.jobs.items()}
    expected = {key: time * (factor or 1) ** rng.uniform(-1, 1) for key, time in seconds.items()}
    failing = frozenset(key for key in jobs.jobs if rng.random() < failures)
    return Durations(seconds, dict.fromkeys(expected, 1.0) if factor is None else expected, failing)


def check(jobs: StudyJobs, run: Simulation, failing: frozenset[str]) -> tuple[int, int]:
    """Check the schedule of a simulated run.

    Returns:
        The numbers of jobs that failed and that were left out because of them.

    Raises:
        AssertionError: a job ran twice, or before one that it needs, or after a failed one, or on a card
            that another one held, or not at all without need.
    """
    ends = {one.key: one.end for one in run.runs}
    assert len(ends) == len(run.runs), "a job ran twice"
    blocked: set[str] = set()
    for key, job in jobs.jobs.items():
        if any(need in blocked or need in failing for need in job.needs):
            blocked.add(key)
    assert ends.keys() == jobs.jobs.keys() - blocked, "a job did not run, or ran after a failed one"
    free = dict.fromkeys((card for one in run.runs for card in one.cards), 0.0)
    for one in run.runs:
        assert all(ends[need] <= one.begin for need in jobs.jobs[one.key].needs), "a job ran too early"
        assert all(free[card] <= one.begin for card in one.cards), "a card was held twice"
        free |= dict.fromkeys(one.cards, one.end)
    return len(failing & ends.keys()), len(blocked)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command line."""
    parser.add_argument("--study", type=Path, default=FIELD, metavar="FILE", help=f"default: {FIELD}")
    parser.add_argument("--cards", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="number of drawn sets of durations")
    parser.add_argument("--failures", type=float, default=0.03, help="share of the jobs that fail")


def run(args: argparse.Namespace) -> None:
    """Print how long the study takes, beside the least that any order could, and how busy the cards are."""
    jobs = jobs_of(read_study(args.study))
    print(f"{len(jobs.jobs)} jobs on {args.cards} cards")
    print(f"{'':28}seed  failed  left out  hours  of the least  cards busy")
    for name, (factor, fail) in SCENARIOS.items():
        for seed in range(args.seeds):
            drawn = draw_durations(jobs, seed, args.failures if fail else 0.0, factor)
            done = simulate(jobs, args.cards, drawn.seconds, expected=drawn.expected, failing=drawn.failing)
            failed, left_out = check(jobs, done, drawn.failing)
            counts = f"{seed:4}{failed:8}{left_out:10}{done.now / 3600:7.1f}"
            busy = done.busy / (args.cards * done.now)
            print(f"{name:28}{counts}{done.now / least_of(jobs, args.cards, done):14.3f}{100 * busy:10.1f} %")


def least_of(jobs: StudyJobs, cards: int, run: Simulation) -> float:
    """Return the least seconds that the jobs of a run could have taken; those that did not run take none."""
    ran = {job.key: job.end - job.begin for job in run.runs}
    return least_seconds(jobs, cards, {key: ran.get(key, 0.0) for key in jobs.jobs})
