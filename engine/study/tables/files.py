"""The files of a study's tables: every table in every format, and a page with all of them."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path

from fewseg.engine.reports.page import html_page
from fewseg.engine.study.description.study_file import StudyFile
from fewseg.util.errors import ResultError
from fewseg.util.files import write_text
from fewseg.util.results.formats import FORMATS, to_html
from fewseg.util.results.tables import Table

PAGE = "tables.html"
_NAME = re.compile(r"table\d+(_\d+)?")


def write_study_tables(folder: Path, study: StudyFile, tables: Mapping[str, Table]) -> Path:
    """Write all tables and their page, and remove those of an earlier call that are not there any more.

    Returns:
        The page.
    """
    written = {PAGE}
    for name, table in tables.items():
        for suffix, write in FORMATS.values():
            written.add(f"{name}.{suffix}")
            write_text(folder / f"{name}.{suffix}", write(table), ResultError)
    body = f"<h1>{html.escape(study.name)}</h1>" + "".join(map(to_html, tables.values()))
    write_text(folder / PAGE, html_page(study.name, body), ResultError)
    suffixes = {f".{suffix}" for suffix, _ in FORMATS.values()}
    for path in folder.iterdir():
        if _NAME.fullmatch(path.stem) and path.suffix in suffixes and path.name not in written:
            path.unlink(missing_ok=True)
    return folder / PAGE
