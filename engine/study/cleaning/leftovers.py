"""What no study of a folder names any more: which runs, results and records these are, and their removal.

Only what a study made can be removed, that is what the record of a job names. Nothing is touched that is
claimed or locked, that lies outside the folder, or that was put there by a user.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from fewseg.dataset.loading.mined import FACTS
from fewseg.engine.evaluation.record import write_overview
from fewseg.engine.setup.run_path import RUN_CONFIG, RUN_LOG
from fewseg.engine.study.cleaning.copies import STUDIES
from fewseg.engine.study.cleaning.made_files import RESULTS, Files, files_below, files_of_result, remove_empty
from fewseg.engine.study.description.jobs import Job, StudyJobs
from fewseg.engine.study.running.claim import Claim, is_claimed
from fewseg.engine.study.running.records import FILES, JOBS, JobRecord, Made
from fewseg.engine.study.running.state import current_queue
from fewseg.util.errors import UserError
from fewseg.util.files import is_inside
from fewseg.util.lock import LOCK, is_locked, lock_folder
from fewseg.util.results.folder import ResultFolder


class What(Enum):
    """What can be removed."""

    RUN = "run"
    LABELS = "labels"
    RESULT = "result"
    RECORD = "record"


@dataclass(frozen=True)
class Leftover:
    """Something that no study names.

    Attributes:
        what: what it is.
        path: its folder, or the file of a result.
        files: its files.
    """

    what: What
    path: Path
    files: Files


@dataclass
class Leftovers:
    """What can be removed from a folder, and what is kept although no study names it, with the reason."""

    remove: list[Leftover] = field(default_factory=list)
    kept: dict[Path, str] = field(default_factory=dict)


def leftovers(root: Path, studies: Iterable[StudyJobs]) -> Leftovers:
    """Find what no study names.

    Args:
        root: the folder of the studies.
        studies: all studies of the folder.
    """
    return _Search(root, {key: job for study in studies for key, job in study.jobs.items()}).found()


class _Search:
    def __init__(self, root: Path, jobs: Mapping[str, Job]) -> None:
        self.root, self.jobs = root, jobs
        self.named = {job.folder.resolve() for job in jobs.values()}
        self.made: dict[Path, set[str]] = {}
        """Folder that a recorded job writes into -> the results that it gives there."""
        self.records: dict[Path, Made | None] = {}
        for folder in sorted(path for path in (root / JOBS).glob("*") if path.is_dir()):
            made = self.records[folder] = JobRecord(folder).made()
            if made is not None:
                self.made.setdefault((folder / made.folder).resolve(), set()).update(made.results)
        submitted = {folder: number for folder in self.records if (number := JobRecord(folder).slurm_job())}
        queue = current_queue() if submitted else {}
        # Records of jobs that run, or wait in SLURM's queue.
        self.at_work = {
            folder for folder in self.records if is_claimed(folder) or submitted.get(folder, "") in queue
        }

    def found(self) -> Leftovers:
        found = Leftovers()
        for run in _runs(self.root):
            if run.resolve() in self.named:
                self._look_into(run, found)
            elif reason := self._reason_to_keep(run):
                found.kept[run] = reason
            else:
                found.remove.append(Leftover(What.RUN, run, self._files_of_run(run)))
        for folder, made in self.records.items():
            if folder.name in self.jobs or made is None:
                continue
            if folder in self.at_work:
                found.kept[folder] = "belongs to a job at work"
            elif any(_overlap(folder / made.folder, kept) for kept in [*found.kept]):
                found.kept[folder] = "tells what made something that is kept"
            else:
                found.remove.append(Leftover(What.RECORD, folder, _files_of_record(folder)))
        return found

    def _reason_to_keep(self, run: Path) -> str | None:
        if run.resolve() not in self.made:
            return "not made by a study"
        if not is_inside(self.root, run):
            return "lies elsewhere"
        return "in use" if self._in_use(run) else None

    def _in_use(self, folder: Path) -> bool:
        """Return whether a process has locked a folder here, or claimed a job that writes here."""
        if any(is_locked(lock.parent) for lock in folder.rglob(LOCK)):
            return True
        writing = (
            path for path, made in self.records.items() if made and _is_below(path / made.folder, folder)
        )
        return any(path in self.at_work for path in writing)

    def _files_of_run(self, run: Path) -> Files:
        """Return the files of a run, without results and labels that no study made."""
        files = files_below(run, run)
        own = {*_hand_made(run, self.made)}
        kept = [path for path in files.made if any(other in path.parents for other in own)]
        return Files.of((path for path in files.made if path not in kept), (*files.others, *kept))

    def _look_into(self, run: Path, found: Leftovers) -> None:
        """Find results and labels of a run that no study names although it names the run."""
        results = run / RESULTS
        wanted = {
            key
            for job in self.jobs.values()
            if job.folder.resolve() == results.resolve()
            for key in job.results
        }
        unwanted = self.made.get(results.resolve(), set()) - wanted
        in_use = self._in_use(results)
        for file, result in ResultFolder(results).results().items():
            if result.key in unwanted and in_use:
                found.kept[file] = "in use"
            elif result.key in unwanted:
                found.remove.append(Leftover(What.RESULT, file, files_of_result(file)))
        for folder in sorted(path.parent for path in run.glob(f"*/{FACTS}")):
            if folder.resolve() in self.made and folder.resolve() not in self.named:
                if self._in_use(folder):
                    found.kept[folder] = "in use"
                else:
                    found.remove.append(Leftover(What.LABELS, folder, files_below(run, folder)))


def remove(leftover: Leftover, root: Path) -> str | None:
    """Remove the files of a leftover; return in words why that was not possible, or None."""
    try:
        if leftover.what is What.RECORD:
            return _remove_record(leftover, root)
        locked = leftover.path
        if leftover.what is What.RESULT:
            locked = ResultFolder(leftover.path.parent).pictures_of(leftover.path)
        try:
            with lock_folder(locked, "cleaning"):
                _unlink(*leftover.files.made, locked / LOCK)
        except UserError:
            return "in use"
        remove_empty(locked, root)
        if leftover.what is What.RESULT:
            folder = ResultFolder(leftover.path.parent)
            with lock_folder(folder.tables, "writing tables"):
                write_overview(folder)
    except OSError as failure:
        return f"cannot be removed ({failure.strerror})"
    return None


def _remove_record(leftover: Leftover, root: Path) -> str | None:
    claim = Claim.take(leftover.path)
    if claim is None:
        return "belongs to a job at work"
    try:
        _unlink(*_files_of_record(leftover.path).made)
        remove_empty(leftover.path, root)
    finally:
        claim.release()
    return None


def _unlink(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _runs(root: Path) -> Iterator[Path]:
    """Yield the folders of runs below a folder; links are not followed."""
    for path, folders, files in os.walk(root):
        if Path(path) == root:
            folders[:] = [name for name in folders if name not in (JOBS, STUDIES)]
        folders.sort()
        if {RUN_CONFIG, RUN_LOG} <= {*files}:
            yield Path(path)
            folders.clear()


def _hand_made(run: Path, made: Mapping[Path, set[str]]) -> Iterator[Path]:
    """Yield the folders of a run in which a user tested, or into which a user mined labels."""
    results = run / RESULTS
    recorded = made.get(results.resolve(), set())
    if any(result.key not in recorded for result in ResultFolder(results).results().values()):
        yield results
    yield from (path.parent for path in run.glob(f"*/{FACTS}") if path.parent.resolve() not in made)


def _files_of_record(folder: Path) -> Files:
    paths = sorted(folder.iterdir())
    made = [path for path in paths if path.name in FILES or path.name.startswith("log.")]
    return Files.of(made, (path for path in paths if path not in made))


def _overlap(one: Path, other: Path) -> bool:
    return _is_below(one, other) or _is_below(other, one)


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve() == folder.resolve() or folder.resolve() in path.resolve().parents
