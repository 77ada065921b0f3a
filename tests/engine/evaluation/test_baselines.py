"""The two scores that need no learning, and that they are poor on Shapes."""

from __future__ import annotations

import numpy as np
import pytest

from fewseg.dataset.shapes.scene import draw_scene
from fewseg.engine.evaluation.baselines import copied_mask, every_object


def test_copied_mask_of_equal_shape_drops_void_only():
    mask = np.array([[0, 1, 255], [1, 1, 0]], np.uint8)
    assert copied_mask(mask, (2, 3)).tolist() == [[0, 1, 0], [1, 1, 0]]


def test_copied_mask_is_stretched_to_the_query():
    mask = np.array([[0, 1], [1, 0]], np.uint8)
    assert copied_mask(mask, (2, 4)).tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]
    assert copied_mask(np.kron(mask, np.ones((3, 3), np.uint8)), (2, 2)).tolist() == mask.tolist()


def test_every_object_ignores_the_class():
    label = np.array([[0, 3, 255], [20, 0, 3]], np.uint8)
    assert every_object(label).tolist() == [[0, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize("fold", range(4))
def test_both_are_poor_on_shapes(fold):
    novel = range(5 * fold + 1, 5 * fold + 6)
    labels = [draw_scene(0, index, 72)[1] for index in range(3, 400, 4)]
    generator = np.random.default_rng(0)
    counts = np.zeros((2, 5, 2))
    for class_id in novel:
        holders = [label for label in labels if (label == class_id).any()]
        for query in holders:
            support = holders[generator.integers(len(holders))]
            if support is query:
                continue
            seen, truth = query != 255, query == class_id
            predictions = (
                copied_mask((support == class_id).astype(np.uint8), query.shape),
                every_object(query),
            )
            for row, prediction in enumerate(predictions):
                positive = (prediction == 1) & seen
                counts[row, class_id - novel[0]] += (
                    (positive & truth).sum(),
                    ((positive | truth) & seen).sum(),
                )
    copied, every = (counts[..., 0] / counts[..., 1]).mean(axis=1)
    assert copied < 0.12
    assert every < 0.33
