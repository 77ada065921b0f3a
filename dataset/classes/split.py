"""Which classes of a data set a fold trains on (base) and which it is tested on (novel)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from fewseg.dataset.classes.shared_names import known_names
from fewseg.dataset.labels import FOLDS, VOID
from fewseg.util.errors import DataError


@dataclass(frozen=True)
class ClassSplit:
    """The classes of one fold.

    Attributes:
        novel, base: dataset ids, ascending. The base learner's channel of a base class is its position + 1.
        names: name of every class by id, ``names[0]`` the background.
        held_out: ids of the other classes: training must not see them, because they select snapshots.
    """

    novel: tuple[int, ...]
    base: tuple[int, ...]
    names: tuple[str, ...]
    held_out: tuple[int, ...] = ()

    @cached_property
    def base_table(self) -> np.ndarray:
        """Table uint8 [256 or more] from id to base label: position + 1 of a base class, 255 void, else 0."""
        if not self.fits_base_labels:
            raise DataError(
                f"a base learner tells at most {VOID - 1} classes apart, but the fold has {len(self.base)} "
                "base classes; train the method without one (base: none)"
            )
        table = np.zeros(max(256, len(self.names) + 1), np.uint8)
        table[list(self.base)] = np.arange(1, len(self.base) + 1)
        table[VOID] = VOID
        return table

    def label(self, class_id: int) -> str:
        """Return the name of a class, followed by its id where several classes have that name."""
        name = self.names[class_id]
        return name if self.names.count(name) == 1 else f"{name} ({class_id})"

    @property
    def unseen(self) -> tuple[int, ...]:
        """The classes that training must not see, ascending."""
        return tuple(sorted(self.novel + self.held_out))

    def hold_out(self) -> ClassSplit:
        """Return the split with every fifth base class held out, from the third one on.

        Raises:
            DataError: there are fewer than 3 base classes.
        """
        held_out = self.base[2::5]
        if not held_out:
            raise DataError(
                f"selection held_out_base: the fold has {len(self.base)} base classes and needs 3; "
                "select on the novel classes or take the last snapshot"
            )
        base = tuple(c for c in self.base if c not in held_out)
        return replace(self, base=base, held_out=held_out)

    def for_selection(self) -> ClassSplit:
        """Return the split that selects snapshots: its novel classes are the held-out ones."""
        return replace(self, novel=self.held_out, held_out=self.novel)

    @property
    def fits_base_labels(self) -> bool:
        """Whether 8-bit labels can number all base classes in addition to background and void."""
        return len(self.base) < VOID

    @cached_property
    def base_index(self) -> dict[int, int]:
        """Zero-based position of every base class among the base classes."""
        return {class_id: index for index, class_id in enumerate(self.base)}


def class_split(
    data_set: str,
    fold: int,
    *,
    interleaved: bool = False,
    folds: int = FOLDS,
    names: Sequence[str] | None = None,
) -> ClassSplit:
    """Return the classes of ``fold``.

    Args:
        data_set: ``pascal``, ``coco`` or ``shapes``, whose class names are fixed, or another with ``names``.
        fold: zero-based index of the fold. Where names are fixed, the fold after the last one has all classes
            as base classes, for models that are tested on other data.
        interleaved: fold i tests classes i+1, i+1+folds, ... (COCO's ``use_split_coco: True``) instead of the
            i-th block of consecutive ids.
        folds: number of folds.
        names: names of the classes with or without a leading "background"; required for other data sets.

    Raises:
        DataError: the data set is unknown and has no ``names``, or there is no such fold.
    """
    further = names is None
    if names is None:
        names = known_names(data_set)
    names = tuple(names) if names and names[0] == "background" else ("background", *names)
    classes = len(names) - 1
    if not 1 <= folds <= classes:
        raise DataError(f"data_set {data_set}: {classes} classes cannot be cut into {folds} folds")
    if not 0 <= fold < folds + further:
        raise DataError(f"split {fold}: data set {data_set} has the folds 0 to {folds - 1 + further}")
    if fold == folds:
        novel = range(0)
    elif interleaved:
        novel = range(fold + 1, classes + 1, folds)
    else:
        novel = range(fold * classes // folds + 1, (fold + 1) * classes // folds + 1)
    base = tuple(c for c in range(1, classes + 1) if c not in novel)
    return ClassSplit(tuple(novel), base, names)
