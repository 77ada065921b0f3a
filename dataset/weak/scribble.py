"""Scribbles made from masks: one stroke along the middle of an object, after the DAVIS interactive robot.

A region is opened and thinned to a skeleton, whose longest path is smoothed as a Bezier curve and drawn one
pixel wide. PANet's annotations were made so; its strokes themselves were never published.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Region = NDArray[np.uint8]
"""[H,W] of 0 and 1."""

OPENING = 0.075
"""Radius of the opening, as a share of the root of the area; at most ``WIDEST_OPENING`` pixels."""
WIDEST_OPENING = 16.0
SHORTEST_PATH = 4
"""Skeletons of fewer pixels give no stroke."""
CURVE_POINTS = 1000
SKELETON_SIDE = 256
"""Longer regions are thinned at this size: their stroke is smooth in any case."""

_NEIGHBOURS = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
_AHEAD = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Each pair of neighbours once, the straight ones first."""


def strokes(region: Region) -> list[Region]:
    """Return the stroke of every connected part of the region, as a region; a part too small gives a dot."""
    count, labels = cv2.connectedComponents(region)
    return [stroke((labels == part).astype(np.uint8)) for part in range(1, count)]


def stroke(region: Region) -> Region:
    """Draw one stroke into a region that is not empty."""
    left, top, width, height = cv2.boundingRect(region)
    cropped = _opened(region[top : top + height, left : left + width])
    shrink = max(1.0, max(width, height) / SKELETON_SIDE)
    small = cropped
    if shrink > 1:
        size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
        small = cv2.resize(cropped, size, interpolation=cv2.INTER_AREA)
    path = longest_path(thin(small))
    out = np.zeros_like(region)
    if len(path) < SHORTEST_PATH:
        out[_deepest(region)] = 1
        return out
    # From the middles of the small pixels to pixels of the image.
    points = (_smooth(path) + 0.5) * (height / small.shape[0], width / small.shape[1]) + (top, left)
    drawn = np.floor(points).astype(np.int32)[:, None, ::-1]
    cv2.polylines(out, [np.ascontiguousarray(drawn)], isClosed=False, color=1)
    if not (out & region).any():  # a bent object may lie outside its own smoothed curve
        out[_deepest(region)] = 1
    return out


def _opened(region: Region) -> Region:
    """Open with the widest disk that leaves something."""
    radius = min(OPENING * math.sqrt(int(region.sum())), WIDEST_OPENING)
    while radius > 1:
        reach = int(radius)
        rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        disk = (rows**2 + columns**2 <= radius**2).astype(np.uint8)
        opened = cv2.morphologyEx(region, cv2.MORPH_OPEN, disk)
        if opened.any():
            return opened
        radius *= 0.9
    return region


def thin(region: Region) -> Region:
    """Return a region's skeleton, one pixel wide and connected like the region (Zhang and Suen, 1984)."""
    skeleton = np.pad(region, 1)
    changed = True
    while changed:
        changed = False
        for table in _DELETABLE:
            # The codes of a correlation with powers of two: which of the eight neighbours are set.
            code = cv2.filter2D(skeleton, cv2.CV_16U, _BITS, borderType=cv2.BORDER_CONSTANT).astype(np.uint8)
            deleted = cv2.LUT(code, table) & skeleton
            if deleted.any():
                skeleton, changed = skeleton ^ deleted, True
    return skeleton[1:-1, 1:-1]


def _deletable(first_pass: bool) -> np.ndarray:
    """Tabulate for every neighbourhood whether a pass of the thinning deletes its centre."""
    table = np.zeros(256, np.uint8)
    for code in range(256):
        ring = [code >> bit & 1 for bit in range(8)]  # clockwise from the top
        starts = sum(a == 0 and b == 1 for a, b in zip(ring, ring[1:] + ring[:1], strict=True))
        north, east, south, west = ring[::2]
        if first_pass:
            edge = not (north and east and south) and not (east and south and west)
        else:
            edge = not (north and east and west) and not (north and south and west)
        table[code] = 2 <= sum(ring) <= 6 and starts == 1 and edge
    return table


_DELETABLE = (_deletable(True), _deletable(False))
_BITS = np.zeros((3, 3), np.float32)
for _bit, (_row, _column) in enumerate(_NEIGHBOURS):
    _BITS[1 + _row, 1 + _column] = 1 << _bit


def longest_path(skeleton: Region) -> NDArray[np.float64]:
    """Return the longest path in the skeleton once its circles are cut, as points (row, column) [n,2].

    The heaviest edges of the circles go, which leaves the lightest tree; two sweeps through a tree find its
    longest path. Of several parts, the one with the longest path counts.
    """
    pixels = np.argwhere(skeleton)
    number = np.full(skeleton.shape, -1)
    number[tuple(pixels.T)] = np.arange(len(pixels))
    tree = _lightest_tree(number, len(pixels))
    best: list[int] = []
    best_length, unseen = -1.0, set(range(len(pixels)))
    while unseen:
        start = min(unseen)
        before, _, farthest = _sweep(tree, start)
        unseen -= before.keys()
        before, length, farthest = _sweep(tree, farthest)
        if length > best_length:
            best_length, best = length, [farthest]
            while before[best[-1]] >= 0:
                best.append(before[best[-1]])
    return pixels[best].astype(np.float64)


def _lightest_tree(number: np.ndarray, count: int) -> list[list[tuple[int, float]]]:
    """Join neighbouring pixels, straight steps before diagonal ones, where they are not joined yet."""
    tree: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    root = list(range(count))

    def find(pixel: int) -> int:
        while root[pixel] != pixel:
            root[pixel] = root[root[pixel]]
            pixel = root[pixel]
        return pixel

    padded = np.pad(number, 1, constant_values=-1)
    for down, right in _AHEAD:
        ahead = padded[1 + down : 1 + down + number.shape[0], 1 + right : 1 + right + number.shape[1]]
        joined = (number >= 0) & (ahead >= 0)
        weight = math.hypot(down, right)
        for a, b in zip(number[joined].tolist(), ahead[joined].tolist(), strict=True):
            if find(a) != find(b):
                root[find(a)] = find(b)
                tree[a].append((b, weight))
                tree[b].append((a, weight))
    return tree


def _sweep(tree: list[list[tuple[int, float]]], start: int) -> tuple[dict[int, int], float, int]:
    """Walk a tree from ``start``: every pixel's predecessor, then the greatest distance and where it is."""
    before, distance, waiting = {start: -1}, {start: 0.0}, [start]
    while waiting:
        pixel = waiting.pop()
        for neighbour, weight in tree[pixel]:
            if neighbour not in before:
                before[neighbour], distance[neighbour] = pixel, distance[pixel] + weight
                waiting.append(neighbour)
    farthest = max(distance, key=lambda pixel: (distance[pixel], -pixel))
    return before, distance[farthest], farthest


def _smooth(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate the Bezier curve that all points of the path control."""
    degree = len(path) - 1
    if degree >= CURVE_POINTS:
        return path
    logarithms = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, degree + 1)))])
    binomial = logarithms[-1] - logarithms - logarithms[::-1]
    at = np.linspace(0, 1, CURVE_POINTS)[1:-1, None]
    power = np.arange(degree + 1)
    weights = np.exp(binomial + power * np.log(at) + power[::-1] * np.log1p(-at))
    return np.concatenate([path[:1], weights @ path, path[-1:]])


def _deepest(region: Region) -> tuple[int, int]:
    """Return the pixel farthest from the region's border."""
    distance = cv2.distanceTransform(np.pad(region, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(distance.argmax(), distance.shape)
    return int(row), int(column)
