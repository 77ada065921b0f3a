"""The tables of a study, complete or partial.

The values of some axes make the rows, those of others the columns; over all other axes figures are averaged.
Results that ``tools/compare.py`` would not compare never share a table, unless the values of an axis that is
shown tell them apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from fewseg.engine.setup.tested_data import tested_data
from fewseg.engine.study.description.grid import AXES, TEST_SHOT, axes_of
from fewseg.engine.study.description.jobs import StudyJobs
from fewseg.engine.study.description.study_file import StudyFile, TableLayout
from fewseg.engine.study.tables.figures import COSTS, SEEDS, Point, figure_of, heading_of, points_of
from fewseg.util.errors import ConfigError
from fewseg.util.results.comparison import KINDS, require_same_episodes
from fewseg.util.results.table_rows import notes_on_classes, shared_traits
from fewseg.util.results.tables import Row, Table, Value

MEAN = "mean"
"""The label of the mean over the folds, after the folds."""

_Labels = tuple[str, ...]


def tables_of(jobs: StudyJobs) -> dict[str, Table]:
    """Return the tables of a study by their names.

    Raises:
        ConfigError: no result has the figure of a table.
        ResultError: results that an average or a table would mix are of other episodes.
    """
    points = points_of(jobs)
    tables: dict[str, Table] = {}
    for number, layout in enumerate(jobs.study.tables or (default_layout(jobs.study),), 1):
        parts = [
            (figures, group)
            for group in _groups(points, layout, jobs.study)
            for figures in ([(figure,) for figure in layout.figure] if layout.columns else [layout.figure])
        ]
        for part, (figures, group) in enumerate(parts, 1):
            name = f"table{number}" if len(parts) == 1 else f"table{number}_{part}"
            tables[name] = _Builder(jobs.study, layout, figures, group).table()
    return tables


def default_layout(study: StudyFile) -> TableLayout:
    """Return the layout of a study that names none: shots and folds in columns, means over the seeds."""
    shot = TEST_SHOT if TEST_SHOT in study.grid else "shot"
    columns = tuple(axis for axis in (shot, "fold") if axis in study.grid)
    return TableLayout(
        rows=tuple(axis for axis in study.grid if axis not in (*columns, "seed")), columns=columns
    )


def _groups(points: Sequence[Point], layout: TableLayout, study: StudyFile) -> Iterator[list[Point]]:
    """Yield the cells that may share a table.

    They are of one data set and alike in every kind that the values of a shown axis do not tell apart.
    """
    by_data: dict[str, list[Point]] = {}
    for point in points:
        by_data.setdefault(tested_data(point.config).Data.data_set, []).append(point)
    told = _telling(layout)
    for group in by_data.values():
        separating = [kind for kind in KINDS if not _is_told(kind, group, told)]
        parts: dict[tuple[object, ...], list[Point]] = {}
        for point in sorted(group, key=lambda point: point.run is None):  # missing ones join the others
            key = tuple(point.kind(kind) for kind in separating)
            home = next((other for other in parts if point.run is None and _may_be(key, other)), key)
            parts.setdefault(home, []).append(point)
        for part in parts.values():
            _require_same_episodes(part, told, study)
            yield part


def _telling(layout: TableLayout) -> list[str]:
    """Return the shown axes whose values a reader takes as a difference between tests."""
    return [axis for axis in (*layout.rows, *layout.columns) if axis not in AXES]


def _at(point: Point, axes: Sequence[str]) -> _Labels:
    return tuple(point.labels[axis] for axis in axes)


def _is_told(kind: str, points: Sequence[Point], axes: Sequence[str]) -> bool:
    """Return whether the values of the axes determine a kind."""
    seen: dict[_Labels, set[object]] = {}
    for point in points:
        if (own := point.kind(kind)) is not None:
            seen.setdefault(_at(point, axes), set()).add(own)
    return all(len(kinds) == 1 for kinds in seen.values())


def _may_be(kinds: tuple[object, ...], other: tuple[object, ...]) -> bool:
    """Return whether a missing result may be of these kinds, as far as its config says."""
    return all(own is None or own == theirs for own, theirs in zip(kinds, other, strict=True))


def _require_same_episodes(points: Sequence[Point], told: Sequence[str], study: StudyFile) -> None:
    by_label: dict[_Labels, list[Point]] = {}
    for point in points:
        by_label.setdefault(_at(point, told), []).append(point)
    remedy = f"show the axis by which they differ in rows or columns of {study.path}, or test again"
    for group in by_label.values():
        require_same_episodes([point.run for point in group if point.run is not None], remedy)


@dataclass(frozen=True)
class _Builder:
    """One table.

    Attributes:
        study: the study.
        layout: the axes of rows and columns.
        figures: one figure, or several that are the columns where no axis is.
        points: its cells.
    """

    study: StudyFile
    layout: TableLayout
    figures: Sequence[str]
    points: Sequence[Point]

    def table(self) -> Table:
        """Return the table."""
        self._require_figures()
        columns = self._present(self.columns, with_mean=True)
        rows = tuple(
            Row(labels, tuple(self._values(labels, columns or [()])))
            for labels in self._present(self.rows, with_mean=False) or [()]
        )
        words = [[self._word(*pair) for pair in zip(self.columns, labels, strict=True)] for labels in columns]
        grouped = len(self.columns) > 1
        return Table(
            title=self._title(),
            label_columns=tuple(axis.rpartition(".")[2] for axis in self.rows),
            value_columns=tuple(own[-1] for own in words) if words else tuple(map(heading_of, self.figures)),
            rows=rows,
            notes=tuple(self._notes(rows)),
            groups=tuple(" ".join(own[:-1]) for own in words) if grouped else (),
        )

    @cached_property
    def rows(self) -> _Labels:
        """The axes of the rows, without the data set, which the title names."""
        return tuple(axis for axis in self.layout.rows if axis != "data")

    @cached_property
    def columns(self) -> _Labels:
        """The axes of the columns, likewise."""
        return tuple(axis for axis in self.layout.columns if axis != "data")

    @cached_property
    def _averaged(self) -> dict[str, list[str]]:
        """The axes over which all figures are averaged, with their labels."""
        shown = {*self.rows, *self.columns}
        labels = {
            axis: [*dict.fromkeys(point.labels[axis] for point in self.points)] for axis in self.study.grid
        }
        return {axis: own for axis, own in labels.items() if axis not in shown and len(own) > 1}

    def _present(self, axes: _Labels, *, with_mean: bool) -> list[_Labels]:
        """Return the labels of these axes that cells have, in the order of the grid."""
        if not axes:
            return []
        order = axes_of(self.study)
        there = {_at(point, axes) for point in self.points}
        folds = {_at(point, ("fold",)) for point in self.points} if "fold" in axes else set()
        means = with_mean and len(folds) > 1
        choices = [[*order[axis], *([MEAN] if axis == "fold" and means else [])] for axis in axes]
        return [
            labels for labels in itertools.product(*choices) if any(_matches(labels, own) for own in there)
        ]

    @cached_property
    def _seeds(self) -> str | None:
        """The axis of the training seeds, if figures are averaged over it."""
        return next((axis for axis in SEEDS if axis in self._averaged), None)

    def _values(self, row: _Labels, columns: Sequence[_Labels]) -> Iterator[Value | None]:
        own = [point for point in self.points if _at(point, self.rows) == row]
        for figure in self.figures:
            for column in columns:
                cells = [point for point in own if _matches(column, _at(point, self.columns))]
                yield figure_of(cells, figure, self._seeds) if self._has_folds(cells, column) else None

    def _has_folds(self, points: Sequence[Point], column: _Labels) -> bool:
        """Return whether all folds of the table are there, where a figure is their mean."""
        if MEAN not in column and "fold" not in self._averaged:
            return True
        return {point.labels["fold"] for point in points} == {point.labels["fold"] for point in self.points}

    def _word(self, axis: str, label: str) -> str:
        if label == MEAN or axis in ("method", "backbone") or isinstance(self.study.grid[axis], Mapping):
            return label
        if axis == "fold":
            return f"fold{label}"
        if axis in ("shot", TEST_SHOT):
            trained = axis == "shot" and TEST_SHOT in self.study.grid
            return f"{label}-shot training" if trained else f"{label}-shot"
        return f"{axis.rpartition('.')[2]} {label}"

    def _title(self) -> str:
        """Return figures and all that the results share besides the values of axes."""
        hidden = {"run", "data set", *(axis for axis in ("shot", "backbone") if axis in self.study.grid)}
        hidden |= {"shot"} if TEST_SHOT in self.study.grid else set()
        results = [point.result for point in self.points if point.result is not None]
        data_set = f"data set {tested_data(self.points[0].config).Data.data_set}"
        shared = shared_traits(results, leave_out=hidden) if results else ()
        return ", ".join([*self.figures, data_set, *shared])

    def _notes(self, rows: Sequence[Row]) -> Iterator[str]:
        there = sum(point.run is not None for point in self.points)
        if there < len(self.points):
            yield f"{there} of {len(self.points)} tests are there; - stands for what is missing."
        if self._averaged:
            axes = (f"{axis.rpartition('.')[2]} {', '.join(own)}" for axis, own in self._averaged.items())
            yield f"Figures are means over {'; '.join(axes)}."
        if any(value and value.std is not None for row in rows for value in row.values):
            seeds = "training seeds" if self._seeds else "seeds of the test"
            yield f"± is the standard deviation (of the population) over the {seeds}."
        results = [point.result for point in self.points if point.result is not None]
        for kind, trait in KINDS.items():
            told = dict.fromkeys(str(trait(result)) for result in results)
            if len(told) > 1:
                yield f"The table holds different {kind}: {', '.join(told)}."
        yield from notes_on_classes(results)

    def _require_figures(self) -> None:
        results = [point.result for point in self.points if point.result is not None]
        known = dict.fromkeys(name for result in results for name in result.mean)
        for figure in self.figures:
            if results and figure not in known and figure not in COSTS:
                raise ConfigError(
                    f"{self.study.path}: tables: figure: {figure} is no metric of the results; there are "
                    f"{', '.join([*known, *COSTS])}"
                )


def _matches(wanted: _Labels, labels: _Labels) -> bool:
    return all(own in (label, MEAN) for own, label in zip(wanted, labels, strict=True))
