"""Pictures of episodes: the supports with their masks outlined, the query, the truth, the prediction."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from fewseg.dataset.labels import VOID

TILE = 240
"""Longer side of an image in a panel, in pixels."""

_TITLE = 24
_GAP = 6
_PAPER = 255
_INK = (40, 40, 40)
_COLOURS = ((230, 80, 30), (30, 120, 230), (40, 170, 80), (200, 60, 190), (240, 180, 20))
"""RGB colours of the ways."""
_VOID_COLOUR = (150, 150, 150)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def outline(image: np.ndarray, mask: np.ndarray, colour: Sequence[int] = _COLOURS[0]) -> np.ndarray:
    """Draw the outline of ``mask == 1`` into a copy of ``image``, RGB uint8 [H,W,3]."""
    inside = (mask == 1).astype(np.uint8)
    contours, _ = cv2.findContours(inside, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    width = max(1, round(max(image.shape[:2]) / 120))
    return cv2.drawContours(image.copy(), contours, -1, tuple(colour), width)


def overlay(image: np.ndarray, labels: np.ndarray, strength: float = 0.55) -> np.ndarray:
    """Tint ``image`` where ``labels`` holds a way (1..N) or void; RGB uint8 [H,W,3]."""
    tinted = image.astype(np.float32)
    for label in np.unique(labels):
        if label == 0:
            continue
        colour = _VOID_COLOUR if label == VOID else _COLOURS[(int(label) - 1) % len(_COLOURS)]
        where = labels == label
        tinted[where] = (1 - strength) * tinted[where] + strength * np.asarray(colour, np.float32)
    return tinted.round().astype(np.uint8)


def panel(
    supports: Sequence[tuple[np.ndarray, np.ndarray]],
    query: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    *,
    title: str = "",
    shown_supports: int = 5,
) -> np.ndarray:
    """Draw the images of an episode in one row.

    Args:
        supports: pairs of an image uint8 [H,W,3] and a mask [H,W] of 0, 1 and 255.
        query: image uint8 [H,W,3].
        truth: labels [H,W] of 0..N and 255, or None.
        prediction: labels [H,W] of 0..N.
        title: text above the headings.
        shown_supports: largest number of supports that are drawn.

    Returns:
        RGB uint8 [H,W,3].
    """
    columns = [("support", outline(image, mask)) for image, mask in supports[:shown_supports]]
    columns.append(("query", query))
    if truth is not None:
        columns.append(("truth", overlay(query, truth)))
    columns.append(("prediction", overlay(query, prediction)))
    tiles = [_tile(image) for _, image in columns]
    height = max(tile.shape[0] for tile in tiles)
    width = sum(tile.shape[1] for tile in tiles) + _GAP * (len(tiles) + 1)
    sheet = np.full((height + 2 * _TITLE + _GAP, width, 3), _PAPER, np.uint8)
    _write(sheet, title, _GAP, _TITLE - 8, 0.5)
    left = _GAP
    for (heading, _), tile in zip(columns, tiles, strict=True):
        _write(sheet, heading, left, 2 * _TITLE - 8, 0.42)
        sheet[2 * _TITLE : 2 * _TITLE + tile.shape[0], left : left + tile.shape[1]] = tile
        left += tile.shape[1] + _GAP
    return sheet


def _tile(image: np.ndarray) -> np.ndarray:
    factor = TILE / max(image.shape[:2])
    size = tuple(max(1, round(side * factor)) for side in image.shape[1::-1])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST)


def _write(sheet: np.ndarray, text: str, left: int, bottom: int, scale: float) -> None:
    cv2.putText(sheet, text, (left, bottom), _FONT, scale, _INK, 1, cv2.LINE_AA)
