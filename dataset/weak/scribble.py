"""Scribbles made from masks: one stroke along the middle of an object, after the DAVIS interactive robot.

A region is opened and thinned to a skeleton, whose longest path is smoothed as a Bezier curve and drawn one
pixel wide. PANet's annotations were made in this way; its strokes themselves were never published.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

Region = np.ndarray
"""[H,W] of 0 and 1."""

OPENING = 0.075
"""Radius of the opening, as a share of the square root of the area; at most ``WIDEST_OPENING`` pixels."""
WIDEST_OPENING = 16.0
SHORTEST_PATH = 4
"""Skeletons of fewer pixels give no stroke."""
CURVE_POINTS = 1000
SKELETON_SIDE = 256
"""Larger regions are downsampled to this side before thinning, since their stroke is smoothed anyway."""


def strokes(region: Region) -> list[Region]:
    """Return the stroke of every connected part of the region, as a region; a small part gives one pixel."""
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
    path = longest_path(thinned(small))
    out = np.zeros_like(region)
    if len(path) < SHORTEST_PATH:
        out[_deepest(region)] = 1
        return out
    # Map the centres of the downsampled pixels to pixels of the image.
    points = (_smooth(path) + 0.5) * (height / small.shape[0], width / small.shape[1]) + (top, left)
    drawn = np.floor(points).astype(np.int32)[:, None, ::-1]
    cv2.polylines(out, [np.ascontiguousarray(drawn)], isClosed=False, color=1)
    if not (out & region).any():  # the smoothed curve of a bent object may be outside of it
        out[_deepest(region)] = 1
    return out


def _opened(region: Region) -> Region:
    """Open the region with the widest disk that does not remove all of it."""
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


def thinned(region: Region) -> Region:
    """Return a region's skeleton, one pixel wide and connected like the region (Zhang and Suen, 1984)."""
    from skimage.morphology import skeletonize

    return skeletonize(region).astype(np.uint8)


def longest_path(skeleton: Region) -> NDArray[np.float64]:
    """Return the longest path in the minimum spanning tree of a skeleton, as points (row, column) [n,2].

    The tree has no cycles, so two searches find its longest path. If the skeleton has several connected
    parts, the longest of their paths is returned.
    """
    from scipy.sparse import triu
    from scipy.sparse.csgraph import connected_components, dijkstra, minimum_spanning_tree
    from skimage.graph import pixel_graph

    graph, pixels = pixel_graph(skeleton > 0, connectivity=2)
    edges = triu(graph, format="csr")
    # All edges get different lengths, so that the tree does not depend on how a machine sorts equal ones.
    edges.data += 1e-9 * np.arange(edges.nnz)
    tree = minimum_spanning_tree(edges)
    _, parts = connected_components(tree, directed=False)
    best, best_length = pixels[:0], -1.0
    for start in np.unique(parts, return_index=True)[1]:
        lengths = np.nan_to_num(dijkstra(tree, False, start), posinf=-1)  # other parts are infinitely far
        lengths, before = dijkstra(tree, False, lengths.argmax(), return_predecessors=True)
        lengths = np.nan_to_num(lengths, posinf=-1)
        if lengths.max() > best_length:
            best_length, path = lengths.max(), [lengths.argmax()]
            while before[path[-1]] >= 0:
                path.append(before[path[-1]])
            best = pixels[path]
    return np.stack(np.unravel_index(best, skeleton.shape), 1).astype(np.float64)


def _smooth(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate the Bezier curve whose control points are all points of the path."""
    from scipy.interpolate import BPoly

    if len(path) > CURVE_POINTS:
        return path
    return BPoly(path[:, None], [0, 1])(np.linspace(0, 1, CURVE_POINTS))


def _deepest(region: Region) -> tuple[int, int]:
    """Return the pixel farthest from the region's border."""
    distance = cv2.distanceTransform(np.pad(region, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(distance.argmax(), distance.shape)
    return int(row), int(column)
