"""The copies of all study files that were run on a folder: they say what is wanted there."""

from __future__ import annotations

from pathlib import Path

from fewseg.engine.study.description.study_file import StudyFile, read_study
from fewseg.util.errors import UserError
from fewseg.util.files import read_text, write_text

STUDIES = "studies"
"""The folder of all studies of a folder of runs, with one below it for each."""

COPY = "study.yaml"
_ORIGIN = "# A copy of "


def study_folder(study: StudyFile) -> Path:
    """Return the folder of what belongs to a study alone: its tables and the copy of its file."""
    return study.root / STUDIES / study.name


def keep_copy(study: StudyFile) -> None:
    """Keep a copy of a study file in the study's folder.

    Raises:
        UserError: the folder belongs to another study file of the same name.
    """
    copy, text = study_folder(study) / COPY, read_text(study.path, "the study file")
    if copy.is_file():
        first, _, kept = read_text(copy, "the copy of a study file").partition("\n")
        if kept == text:
            return
        origin = Path(first.removeprefix(_ORIGIN))
        if origin.is_file() and not origin.samefile(study.path):
            raise UserError(
                f"{copy.parent}: belongs to another study of the same name, {origin}; rename one of the two "
                "files"
            )
    write_text(copy, f"{_ORIGIN}{study.path.resolve()}\n{text}")


def studies_of(root: Path, given: list[StudyFile]) -> list[StudyFile]:
    """Return the given studies, and the copies of all others that were run on a folder."""
    own = {str(study.path.resolve()) for study in given}
    copies = sorted((root / STUDIES).glob(f"*/{COPY}"))
    kept = [copy for copy in copies if _origin_of(copy) not in own]
    return [*given, *(read_study(copy) for copy in kept)]


def _origin_of(copy: Path) -> str:
    return read_text(copy, "the copy of a study file").partition("\n")[0].removeprefix(_ORIGIN)
