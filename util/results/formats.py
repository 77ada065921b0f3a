"""Tables as text: for the terminal, Markdown, CSV, LaTeX and HTML."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from fewseg.util.results.tables import Table


def to_terminal(table: Table) -> str:
    """Return the table in aligned columns."""
    lines = _cells(table)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    labels = len(table.label_columns)
    text = [
        "  ".join(
            cell.ljust(width) if column < labels else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([table.title, text[0], "-" * max(map(len, text)), *text[1:], *table.notes]) + "\n"


def to_markdown(table: Table) -> str:
    """Return the table in Markdown, its title above it."""
    header, *rows = ["| " + " | ".join(line) + " |" for line in _cells(table)]
    rule = "|" + "---|" * len(table.label_columns) + "---:|" * len(table.value_columns)
    notes = [line for note in table.notes for line in ("", note)]
    return "\n".join([f"{table.title}", "", header, rule, *rows, *notes]) + "\n"


def to_csv(table: Table) -> str:
    """Return the table as CSV.

    Every figure (``-`` where there is none) is followed by its standard deviation (empty where there is none)
    and, in columns with intervals, by the two ends of its interval.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = list(zip(*(row.values for row in table.rows), strict=True))
    ends = [
        ("", "_std", "_low", "_high") if any(value and value.interval for value in column) else ("", "_std")
        for column in columns
    ]
    heads = [f"{name}{end}" for name, own in zip(table.headings, ends, strict=True) for end in own]
    writer.writerow([*table.label_columns, *heads])
    for row in table.rows:
        cells: list[str] = []
        for value, own in zip(row.values, ends, strict=True):
            figures = (
                (None,) * 4 if value is None else (value.mean, value.std, *(value.interval or (None, None)))
            )
            shown = ["" if figure is None else f"{figure:.4f}" for figure in figures[: len(own)]]
            cells += [shown[0] or "-", *shown[1:]]
        writer.writerow([*row.labels, *cells])
    return text.getvalue()


def to_latex(table: Table) -> str:
    """Return the table as a LaTeX tabular (package booktabs)."""
    _, *rows = (" & ".join(map(_escaped, line)) + r" \\" for line in _cells(table, r" $\pm$ "))
    header = " & ".join(map(_escaped, (*table.label_columns, *table.value_columns))) + r" \\"
    columns = "l" * len(table.label_columns) + "r" * len(table.value_columns)
    comments = [f"% {line}" for line in (table.title, *table.notes)]
    begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    body = [r"\toprule", *_latex_groups(table), header, r"\midrule", *rows, r"\bottomrule"]
    return "\n".join([*comments, begin, *body, end]) + "\n"


def to_html(table: Table) -> str:
    """Return the table with its title and notes as a part of a page."""
    labels = len(table.label_columns)
    _, *rows = _cells(table)
    head = _html_row((*table.label_columns, *table.value_columns), "th", labels)
    body = "".join(_html_row(row, "td", labels) for row in rows)
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in table.notes)
    title = html.escape(table.title)
    grid = f"<table>{_html_groups(table)}{head}{body}</table>"
    return f'<h2>{title}</h2><div class="wide">{grid}</div>{notes}'


FORMATS: dict[str, tuple[str, Callable[[Table], str]]] = {
    "terminal": ("txt", to_terminal),
    "markdown": ("md", to_markdown),
    "csv": ("csv", to_csv),
    "latex": ("tex", to_latex),
}
"""Format -> suffix of its files, and its writer."""


def _groups(table: Table) -> Iterator[tuple[str, int]]:
    """Yield the groups of columns, and how many columns each has."""
    for group, columns in groupby(table.groups):
        yield group, len([*columns])


def _html_row(cells: Sequence[str], tag: str, labels: int) -> str:
    texts = (
        f"<{tag}{' class=label' if column < labels else ''}>{html.escape(cell)}</{tag}>"
        for column, cell in enumerate(cells)
    )
    return f"<tr>{''.join(texts)}</tr>"


def _html_groups(table: Table) -> str:
    """Return the row of the groups; nothing where columns are not grouped."""
    cells = "".join(
        f'<th class="group" colspan="{width}">{html.escape(group)}</th>' for group, width in _groups(table)
    )
    return f'<tr><th colspan="{len(table.label_columns)}"></th>{cells}</tr>' if cells else ""


def _latex_groups(table: Table) -> list[str]:
    """Return the line of the groups and the rules below it; nothing where columns are not grouped."""
    cells, rules, column = [""] * len(table.label_columns), [], len(table.label_columns) + 1
    for group, width in _groups(table):
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{_escaped(group)}}}")
        rules.append(rf"\cmidrule(lr){{{column}-{column + width - 1}}}")
        column += width
    return [" & ".join(cells) + r" \\", " ".join(rules)] if rules else []


def _cells(table: Table, plus_minus: str = " ± ") -> list[list[str]]:
    rows = [
        [*row.labels, *("-" if value is None else value.text(plus_minus) for value in row.values)]
        for row in table.rows
    ]
    return [[*table.label_columns, *table.headings], *rows]


def _escaped(cell: str) -> str:
    return re.sub(r"([_&%#])", r"\\\1", cell)
