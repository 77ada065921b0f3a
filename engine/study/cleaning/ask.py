"""Clean the folders of studies: list what no study names, ask, and remove it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from fewseg.engine.setup.run_path import RUNS
from fewseg.engine.study.cleaning.copies import COPY, STUDIES, studies_of
from fewseg.engine.study.cleaning.leftovers import Leftovers, What, leftovers, remove
from fewseg.engine.study.description.expansion import jobs_of
from fewseg.engine.study.description.jobs import StudyJobs
from fewseg.engine.study.description.study_file import StudyFile, read_study
from fewseg.util.errors import UserError

Ask = Callable[[], bool]


def clean(files: Sequence[str], ask: Ask) -> None:
    """Remove from the folders of studies what no study names, if the user agrees.

    Args:
        files: study files, whose folders are cleaned; none: the default folder of runs.
        ask: asks whether to remove what was listed.

    Raises:
        UserError: a study cannot be read or expanded, so that what it names is not known.
    """
    given = [read_study(file) for file in files]
    for root in dict.fromkeys(study.root for study in given) or [RUNS]:
        _clean_folder(root, [study for study in given if study.root == root], ask)


def _clean_folder(root: Path, given: list[StudyFile], ask: Ask) -> None:
    found = leftovers(root, _jobs_of_all(root, given))
    _show(found, root)
    if not found.remove:
        print(f"{root}: nothing to remove")
        return
    if not ask():
        print("nothing was removed")
        return
    # What was claimed, locked or named while the question stood is left alone.
    now = {leftover.path: leftover for leftover in leftovers(root, _jobs_of_all(root, given)).remove}
    removed = 0
    kept = False
    for leftover in (now[leftover.path] for leftover in found.remove if leftover.path in now):
        if kept and leftover.what is What.RECORD:
            continue  # it may tell that a study made what could not be removed
        reason = remove(leftover, root)
        if reason is not None:
            print(f"kept    {reason}: {leftover.path}")
        kept |= reason is not None
        removed += leftover.files.size if reason is None else 0
    print(f"removed {_size(removed)}")


def _jobs_of_all(root: Path, given: list[StudyFile]) -> list[StudyJobs]:
    """Expand all studies of a folder."""
    expanded = []
    studies = studies_of(root, given)
    if not studies:
        raise UserError(
            f"{root}: no study was run there ({STUDIES}/*/{COPY}), so it is not known what is wanted; "
            "name the study files whose runs are kept"
        )
    for study in studies:
        if study.root.resolve() != root.resolve():
            raise UserError(
                f"{study.path}: is a study of {study.root}, not of {root}; correct its folder, or remove "
                "this copy"
            )
        try:
            expanded.append(jobs_of(study))
        except UserError as failure:
            raise UserError(
                f"{failure}; nothing is removed while it is not known what this study names: correct it, or "
                f"remove {study.path} to give the study up"
            ) from failure
    return expanded


def _show(found: Leftovers, root: Path) -> None:
    for path, reason in found.kept.items():
        print(f"kept    {reason}: {path}")
    for leftover in found.remove:
        print(f"remove  {leftover.what.value:6}  {_size(leftover.files.size):>10}  {leftover.path}")
        for other in leftover.files.others:
            print(f"kept    not made by a study: {other}")
    if found.remove:
        total = sum(leftover.files.size for leftover in found.remove)
        print(f"total   {len(found.remove)} in {root}, {_size(total)}")


def _size(number: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"
