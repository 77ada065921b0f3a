"""Indices of label areas from figures, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fewseg.dataset.lists.area_index import AreaIndex


def index_of(areas: Mapping[str, tuple[int, int, Mapping[int, int]]]) -> AreaIndex:
    """Make an index: name -> (height, width, {label: pixels})."""
    rows = [
        (
            height,
            width,
            np.array(sorted(found), np.uint8),
            np.array([found[i] for i in sorted(found)], np.int32),
        )
        for height, width, found in areas.values()
    ]
    return AreaIndex.from_rows(tuple(areas), rows)


def areas_of(index: AreaIndex, position: int) -> dict[int, int]:
    """Return label -> pixel count of one mask, void included."""
    entries = slice(index.start[position], index.start[position + 1])
    return dict(zip(index.label[entries].tolist(), index.area[entries].tolist(), strict=True))
