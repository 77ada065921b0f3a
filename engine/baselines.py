"""What needs no learning: the scores that a trained model has to be compared with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataset.split import BACKGROUND, VOID


def copied_mask(support_mask: NDArray[np.uint8], query_shape: tuple[int, int]) -> NDArray[np.uint8]:
    """The support's mask laid over the query: how far place and size alone lead.

    Args:
        support_mask: [H, W] of 0, 1 and 255 (void, taken as background).
        query_shape: height and width of the query, to which the mask is stretched.

    Returns:
        A prediction of 0 and 1 in the query's shape.
    """
    height, width = support_mask.shape
    # The nearest pixel by its centre, in integers.
    rows = (2 * np.arange(query_shape[0]) + 1) * height // (2 * query_shape[0])
    columns = (2 * np.arange(query_shape[1]) + 1) * width // (2 * query_shape[1])
    return (support_mask[rows[:, None], columns] == 1).astype(np.uint8)


def every_object(label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every labelled object of the query: a perfect finder of objects that tells none apart.

    Args:
        label: [H, W] dataset ids of the query, 0 background, 255 void.

    Returns:
        A prediction of 0 and 1.
    """
    return ((label != BACKGROUND) & (label != VOID)).astype(np.uint8)
