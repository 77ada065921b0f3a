"""Carry out a study on a cluster: submit its jobs to SLURM as arrays that wait for each other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from fewseg.engine.setup.interrupt import Interrupted, StopRequest
from fewseg.engine.study.description.jobs import StudyJobs
from fewseg.engine.study.running.records import JobRecord
from fewseg.engine.study.running.state import State, states_of
from fewseg.engine.study.slurm.arrays import Array, arrays_of
from fewseg.engine.study.slurm.options import check_options, executor_for
from fewseg.engine.study.slurm.queue import read_queue, require_slurm
from fewseg.engine.study.slurm.task import Task
from fewseg.util.errors import UserError
from fewseg.util.lock import lock_folder
from fewseg.util.log import get_log

SLURM = "slurm"
"""The folder, below that of the study, of what submitit writes: scripts, tasks, and what they print."""

_LOCKED = 120.0
"""Seconds to wait while another process submits jobs of the same folder."""

_SOON, _LATE = 2.0, 30.0
"""Seconds between two questions to SLURM: after a change, and after a long time without one."""

_TODO = (State.READY, State.WAITING, State.FAILED)


def run_slurm(jobs: StudyJobs, wait: bool) -> dict[str, str]:
    """Submit the jobs of a study that are neither done nor submitted, and return the errors of failed ones.

    Args:
        jobs: the jobs.
        wait: whether to wait until all jobs have ended; without it there are no errors.

    Raises:
        UserError: there is no SLURM here, it refuses the jobs, or an option of the study file is wrong.
        Interrupted: on a request to stop waiting; the jobs go on.
    """
    require_slurm("sbatch")
    check_options(jobs.study)
    with lock_folder(jobs.study.root / SLURM, "submitting jobs", wait=_LOCKED):
        _submit(jobs)
    return _watch(jobs) if wait else {}


def _submit(jobs: StudyJobs) -> None:
    """Submit what is neither done, nor submitted, nor carried out by a process outside SLURM."""
    log, queue = get_log("study"), read_queue()
    states = states_of(jobs, queue)
    ids: dict[str, str] = {}
    left_out: set[str] = set()
    for key, job in jobs.jobs.items():
        number = JobRecord.of(jobs.study.root, job).slurm_job()
        if states[key] in (State.RUNNING, State.QUEUED) and number in queue:
            ids[key] = str(number)
        elif states[key] is State.RUNNING or left_out.intersection(job.needs):
            left_out.add(key)
    wanted = [key for key, state in states.items() if state in _TODO and key not in left_out]
    for array in arrays_of(jobs, wanted, ids.keys()):
        ids |= _submit_array(jobs, array, ids)
    if left_out:
        log.warning(
            "%d jobs are carried out by a process outside SLURM, or need one of these; run the study again "
            "when it has ended",
            len(left_out),
        )
    if not wanted:
        log.info("nothing is left to submit")


def _submit_array(jobs: StudyJobs, array: Array, ids: Mapping[str, str]) -> dict[str, str]:
    """Submit an array, note the ids of its jobs in their records, and return them."""
    study = jobs.study
    after = _dependency(array, ids)
    executor = executor_for(study, array.jobs, study.root / SLURM, after)
    try:
        submitted = executor.submit_array([Task(job, jobs.jobs, study.root) for job in array.jobs])
    except (OSError, RuntimeError) as failure:  # submitit passes on what sbatch says
        said = " ".join(str(failure).split()) or type(failure).__name__
        raise UserError(f"{study.path}: slurm: sbatch refuses {array.jobs[0].name}: {said}") from failure
    given = {job.key: str(handle.job_id) for job, handle in zip(array.jobs, submitted, strict=True)}
    for job in array.jobs:
        JobRecord.of(study.root, job).submitted(given[job.key])
    number = len(array.jobs)
    what = array.jobs[0].name if number == 1 else f"{number} jobs"
    first = given[array.jobs[0].key].partition("_")[0]
    get_log("study").info(
        "SLURM job %s: %s: %s%s", first, array.jobs[0].kind.value, what, f", {after}" if after else ""
    )
    return given


def _dependency(array: Array, ids: Mapping[str, str]) -> str:
    """Return what an array waits for, as sbatch reads it; empty for nothing."""
    waited_for = [ids[key] for key in array.after]
    if not waited_for:
        return ""
    if array.one_by_one and len(waited_for) > 1:
        return f"aftercorr:{waited_for[0].partition('_')[0]}"
    return f"afterok:{':'.join(waited_for)}"


def _watch(jobs: StudyJobs) -> dict[str, str]:
    """Wait until SLURM has ended all jobs of a study; log every change, and return the errors."""
    log = get_log("study")
    before: dict[str, State] = {}
    idle, pause = 0, _SOON
    with StopRequest() as stop:
        while idle < 2:  # a job between two states is in neither for a moment
            try:
                states = states_of(jobs, read_queue())
            except UserError as failure:
                log.warning("%s", failure)
                states = before
            _log_changes(jobs, before, states)
            pause = _SOON if states != before else min(2 * pause, _LATE)
            before = states
            going_on = {State.RUNNING, State.QUEUED}.intersection(states.values())
            idle = 0 if going_on or not states else idle + 1
            _pause(jobs, pause if going_on else _SOON, stop)
    return _errors(jobs, before)


def _pause(jobs: StudyJobs, seconds: float, stop: StopRequest) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.2)
        try:
            stop.check()
        except Interrupted:
            queue = read_queue()
            numbers = (JobRecord.of(jobs.study.root, job).slurm_job() or "" for job in jobs.jobs.values())
            arrays = dict.fromkeys(number.partition("_")[0] for number in numbers if number in queue)
            raise Interrupted(
                "stopped waiting; the jobs go on, and study.py run --on slurm waits for them again; "
                f"to end them: scancel {' '.join(arrays)}"
            ) from None


def _log_changes(jobs: StudyJobs, before: Mapping[str, State], now: Mapping[str, State]) -> None:
    log = get_log("study")
    for key, state in now.items():
        job = jobs.jobs[key]
        if key not in before or state is before[key] or state in (State.QUEUED, State.READY, State.WAITING):
            continue
        error = JobRecord.of(jobs.study.root, job).error()
        said = f"failed: {error}" if state is State.FAILED else state.value
        log.info("%s %s: %s", job.kind.value, job.name, said)
    if now != before:
        log.info(
            "%s", ", ".join(f"{number} {state.value}" for state, number in Counter(now.values()).items())
        )


def _errors(jobs: StudyJobs, states: Mapping[str, State]) -> dict[str, str]:
    """Return the errors of the jobs that failed, and of those that SLURM ended without a word."""
    errors = {}
    for key, state in states.items():
        record = JobRecord.of(jobs.study.root, jobs.jobs[key])
        if state is State.FAILED:
            errors[key] = record.error() or "failed"
        elif state is State.READY:
            said = jobs.study.root / SLURM / f"{record.slurm_job()}_0_log.err"
            errors[key] = f"has ended without a result or an error; see {said}, and run the study again"
    return errors
