"""Which classes of one data set a training on another one has seen: those of the same name."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace

from fewseg.dataset.classes.split import ClassSplit
from fewseg.util.errors import DataError

_SYNONYMS = {"airplane": "aeroplane", "motorcycle": "motorbike", "couch": "sofa", "tv": "tvmonitor"}
"""COCO's name of a class -> PASCAL's, where they differ in more than blanks."""


def plain_name(name: str) -> str:
    """Return a name by which namesakes are recognised: ``Dining table`` and ``diningtable`` have one."""
    letters = re.sub(r"[\W_]+", "", name.casefold())
    return _SYNONYMS.get(letters, letters)


def namesakes(split: ClassSplit, trained: ClassSplit) -> tuple[int, ...]:
    """Return the novel classes of ``split`` that have the name of a base class of ``trained``."""
    seen = {plain_name(trained.names[class_id]) for class_id in trained.base}
    return tuple(class_id for class_id in split.novel if plain_name(split.names[class_id]) in seen)


def unseen_classes(split: ClassSplit, trained: ClassSplit, tested_on: str, trained_on: str) -> ClassSplit:
    """Return all classes of a data set that a training on another one has not seen, as novel classes.

    For a training on a fold of COCO-20i these are the classes of PASCAL whose namesakes the fold holds out.

    Args:
        split: any fold of the data set that is tested; its base classes are tested too.
        trained: the classes of the training.
        tested_on, trained_on: the names of both data sets, for messages.

    Raises:
        DataError: the training has seen all of them.
    """
    every = replace(split, novel=tuple(sorted((*split.novel, *split.base, *split.held_out))), base=())
    seen = namesakes(every, trained)
    novel = tuple(class_id for class_id in every.novel if class_id not in seen)
    if not novel:
        raise DataError(
            f"{tested_on}: the training on {trained_on} has seen all {len(every.novel)} classes; name a fold "
            "to test nevertheless: --data YAML split 0"
        )
    return replace(every, novel=novel, held_out=())


def fold_of_other_data(split: ClassSplit, trained: ClassSplit, tested_on: str, trained_on: str) -> ClassSplit:
    """Return the novel classes of a fold, with a warning about those that a training has seen.

    The arguments are those of ``unseen_classes``.
    """
    seen = namesakes(split, trained)
    if seen:
        listed = ", ".join(map(split.label, seen))
        warnings.warn(
            f"{tested_on}: the training on {trained_on} has seen {listed}, which the test treats as new; "
            "without a fold (split) only classes that it has not seen are tested",
            stacklevel=2,
        )
    return replace(split, base=(), held_out=())
