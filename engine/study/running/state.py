"""How far the jobs of a study are: read anew from the files of runs, results and claims."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path

from fewseg.dataset.loading.mined import mined_by
from fewseg.engine.setup.protocols import test_protocol
from fewseg.engine.setup.run_path import run_key
from fewseg.engine.setup.weights import tested_weights
from fewseg.engine.study.description.jobs import Job, Kind, StudyJobs
from fewseg.engine.study.running.claim import is_claimed
from fewseg.engine.study.running.records import JobRecord
from fewseg.engine.study.slurm.queue import Queue, Queued, read_queue
from fewseg.engine.training.finished import Finished
from fewseg.engine.training.snapshot import BEST
from fewseg.util.errors import UserError
from fewseg.util.log import get_log
from fewseg.util.results.folder import ResultFolder
from fewseg.util.results.result import Result


class State(Enum):
    """How far a job is."""

    DONE = "done"
    RUNNING = "running"
    QUEUED = "queued"
    FAILED = "failed"
    READY = "ready"
    WAITING = "waiting"


def states_of(jobs: StudyJobs, queue: Queue | None = None) -> dict[str, State]:
    """Return the state of every job.

    A job whose dependents are all done counts as done even if its own files have been removed.

    Args:
        jobs: the jobs.
        queue: SLURM's queue; None: it is asked for if any job was ever submitted. Where SLURM does not
            answer, nothing counts as queued.
    """
    done = done_jobs(jobs)
    records = {key: JobRecord.of(jobs.study.root, job) for key, job in jobs.jobs.items() if key not in done}
    submitted = {key: number for key, record in records.items() if (number := record.slurm_job())}
    if queue is None:
        queue = current_queue() if submitted else {}
    return {
        key: State.DONE if key in done else _state(job, records[key], queue.get(submitted.get(key, "")), done)
        for key, job in jobs.jobs.items()
    }


def done_jobs(jobs: StudyJobs) -> set[str]:
    """Return the keys of the jobs that need not run any more."""
    done: set[str] = set()
    for key, job in reversed([*jobs.jobs.items()]):
        dependents = jobs.dependents[key]
        if (dependents and done.issuperset(dependents)) or is_done(job, jobs.jobs):
            done.add(key)
    return done


def is_done(job: Job, jobs: Mapping[str, Job]) -> bool:
    """Return whether the files that a job gives are there, made from those that its needs give now."""
    if job.kind is Kind.TEST:
        return set(job.results) <= results_of(job, jobs).keys()
    needs = [jobs[need] for need in job.needs]
    if job.kind is Kind.MINE:
        return mined_by(job.folder) in _weights_of(needs[0])
    finished = Finished.read(job.folder)
    if finished is None or finished.key != run_key(job.config):
        return False
    for need in needs:
        if need.kind is Kind.BASE and finished.base_learner is not None:
            base = Finished.read(need.folder)
            if base is not None and base.weights.get(BEST) != finished.base_learner:
                return False
    return True


def results_of(job: Job, jobs: Mapping[str, Job]) -> dict[str, Result]:
    """Return the results that a test job has given for the weights as they are now, by their keys."""
    return {result.key: result for result in files_of(job, jobs).values() if result.key is not None}


def files_of(job: Job, jobs: Mapping[str, Job]) -> dict[Path, Result]:
    """Return the results that a test job has given for the weights as they are now, by their files.

    A test of generalised segmentation gives several results of one key, one for each way to merge.
    """
    weights = _weights_of(jobs[job.needs[0]])
    found = ResultFolder(job.folder).results().items() if job.folder.is_dir() else ()
    return {
        path: result
        for path, result in found
        if result.key in job.results and (not weights or result.checkpoint_hash in weights)
    }


def _state(job: Job, record: JobRecord, queued: Queued | None, done: set[str]) -> State:
    if is_claimed(record.folder):
        return State.RUNNING
    failed = record.error() is not None
    if queued is not None and queued.will_run and not (failed and queued.is_ending):
        return State.QUEUED
    if failed:
        return State.FAILED
    return State.READY if done.issuperset(job.needs) else State.WAITING


def current_queue() -> Queue:
    """Return what SLURM runs, and what waits for it; nothing where SLURM does not answer."""
    try:
        return read_queue()
    except UserError as failure:
        get_log("study").debug("%s", failure)
        return {}


def _weights_of(training: Job) -> set[str]:
    """Return the hash of the weights of a training that are tested; empty where it is not finished."""
    finished = Finished.read(training.folder)
    name = tested_weights(test_protocol(training.config))
    return {finished.weights[name]} if finished is not None and name in finished.weights else set()
