"""The rows of tables: which results share one, and the traits in which rows differ."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewseg.util.errors import ResultError
from fewseg.util.results.identity import file_name
from fewseg.util.results.result import Result

Trait = Callable[[Result], Any]

_TRAITS: dict[str, Trait] = {
    "data set": lambda result: result.data_set,
    "backbone": lambda result: result.backbone,
    "shot": lambda result: result.shot,
    "way": lambda result: result.ways,
    "protocol": lambda result: with_changes(result.protocol, result.protocol_difference),
    "trained on": lambda result: result.trained_on or "-",
    "trained under": lambda result: _training(result),
    "novel in train": lambda result: result.novel_in_train or "-",
    "setting": lambda result: result.setting + (" (oracle)" if result.oracle else ""),
    "supports": lambda result: "-" if result.annotation == "mask" else result.annotation,
    "auxiliary images": lambda result: result.config.get("Data", {}).get("auxiliary") or "-",
    "run": lambda result: result.variant or "-",
    "episodes": lambda result: f"{len(result.seeds)} x {result.episodes}",
}
"""Name of a trait in which two rows of one method may differ -> its value."""

_COUNTS = ("episodes", "seeds")
"""Points of a protocol that have a column of their own."""


def with_changes(protocol: str, difference: Mapping[str, tuple[Any, Any]]) -> str:
    """Return the name of a protocol together with the points that were changed in it."""
    points = [f"{point} {own}" for point, (_, own) in difference.items() if point not in _COUNTS]
    return f"{protocol} with {', '.join(points)}" if points else protocol


def _training(result: Result) -> str:
    """Return the protocol of the training, ``-`` where it is that of the test."""
    trained = result.trained_under or result.protocol
    text = with_changes(trained, result.training_difference)
    return "-" if text == result.protocol else text


def row_key(result: Result, more: Mapping[str, Trait] | None = None) -> tuple[str, ...]:
    """Return what the results of one row share: the method, then every trait."""
    return (result.method, *(str(trait(result)) for trait in (_TRAITS | dict(more or {})).values()))


@dataclass(frozen=True)
class Arrangement:
    """Results put into rows.

    Attributes:
        label_columns: ``method``, and the traits in which rows differ.
        shared: the other traits, as words.
        rows: labels of a row -> its result by fold.
    """

    label_columns: tuple[str, ...]
    shared: tuple[str, ...]
    rows: dict[tuple[str, ...], dict[int, Result]]


def arrange(results: Sequence[Result], more: Mapping[str, Trait] | None = None) -> Arrangement:
    """Put results of one method and the same traits into one row.

    Args:
        results: in the order of the rows.
        more: traits that distinguish rows, besides the usual ones.

    Raises:
        ResultError: the same run twice.
    """
    rows: dict[tuple[str, ...], dict[int, Result]] = {}
    for result in results:
        folds = rows.setdefault(row_key(result, more), {})
        if result.fold in folds:
            raise ResultError(f"{file_name(result)}: given twice; keep one of the two files")
        folds[result.fold] = result
    names, traits = [*_TRAITS, *(more or {})], list(zip(*rows, strict=True))[1:]
    differing = [index for index, values in enumerate(traits) if len(set(values)) > 1]
    return Arrangement(
        ("method", *(names[index] for index in differing)),
        shared_traits(results, more),
        {(key[0], *(key[1 + index] for index in differing)): folds for key, folds in rows.items()},
    )


def shared_traits(
    results: Sequence[Result], more: Mapping[str, Trait] | None = None, leave_out: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the traits that all results share, in words: ``backbone resnet50``."""
    traits = {name: trait for name, trait in (_TRAITS | dict(more or {})).items() if name not in leave_out}
    values = {name: {str(trait(result)) for result in results} for name, trait in traits.items()}
    return tuple(f"{name} {value}" for name, (value, *rest) in values.items() if not rest and value != "-")


def notes_on_classes(results: Sequence[Result]) -> tuple[str, ...]:
    """Return a line for every fold and number of shots of which some classes were not tested."""
    lines = (
        f"fold {result.fold}, {result.shot}-shot: {result.tested_in_words}"
        for result in results
        if result.tested_in_words
    )
    return tuple(dict.fromkeys(lines))
