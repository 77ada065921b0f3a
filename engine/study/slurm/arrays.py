"""Which jobs of a study go to a cluster as one array, and what each array waits for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from fewseg.engine.study.description.jobs import Job, Kind, StudyJobs

LARGEST = 1000
"""Most jobs in an array; SLURM's own limit is one more by default."""

_FOLLOW = (Kind.MINE, Kind.TEST)
"""Kinds that need one training each, so that an array of them can follow an array of trainings."""


@dataclass(frozen=True)
class Array:
    """Jobs that are submitted together.

    Attributes:
        jobs: the jobs, all of one kind.
        after: keys of the jobs that must have succeeded before.
        one_by_one: whether each job waits only for that of ``after`` with the same number.
    """

    jobs: tuple[Job, ...]
    after: tuple[str, ...]
    one_by_one: bool = False


def arrays_of(jobs: StudyJobs, wanted: Collection[str], queued: Collection[str]) -> Iterator[Array]:
    """Yield the arrays that carry out jobs of a study, every one after those that it waits for.

    Jobs that wait for the same others are one array. What follows one training each, its test or the mining
    by it, is an array that follows that of the trainings job by job, so that no test waits for the slowest.

    Args:
        jobs: the jobs of the study.
        wanted: keys of those to carry out.
        queued: keys of those that are submitted already; what else is needed must be done.
    """
    ahead = {*wanted, *queued}
    followers: dict[str, list[Job]] = defaultdict(list)
    waiting: dict[str, tuple[str, ...]] = {}
    for key, job in jobs.jobs.items():
        if key not in wanted:
            continue
        needs = tuple(need for need in job.needs if need in ahead)
        if job.kind in _FOLLOW and len(needs) == 1 and needs[0] in wanted:
            followers[needs[0]].append(job)
        else:
            waiting[key] = needs
    groups: dict[tuple[Kind, tuple[str, ...], tuple[Kind, ...]], list[Job]] = defaultdict(list)
    for key, needs in waiting.items():
        job = jobs.jobs[key]
        # Trainings with as many followers of each kind share an array, which theirs then have the length of.
        kinds = tuple(follower.kind for follower in followers[key])
        groups[job.kind, needs, kinds].append(job)
    for group in groups.values():
        for part in _parts(group):
            keys = tuple(job.key for job in part)
            yield Array(part, waiting[keys[0]])
            for following in zip(*(followers[key] for key in keys), strict=True):
                yield Array(following, keys, one_by_one=True)


def _parts(jobs: Sequence[Job]) -> Iterator[tuple[Job, ...]]:
    rest = iter(jobs)
    while part := tuple(islice(rest, LARGEST)):
        yield part
