"""Weak annotations and what the objects of other ways become."""

import numpy as np

from dataset.fewshot import support_label
from dataset.weak import annotate, largest_box
from model.interface import UNLABELLED


def two_objects() -> np.ndarray:
    mask = np.zeros((10, 12), np.uint8)
    mask[1:3, 1:4] = 1
    mask[5:9, 5:10] = 1
    return mask


def test_the_largest_part_gives_the_box_and_the_others_are_left_open() -> None:
    mask = two_objects()
    mask[5, 5] = 0
    label = annotate(mask, "largest_bbox")
    assert (label[5:9, 5:10] == 1).all() and (label == 1).sum() == 20
    assert (label[1:3, 1:4] == UNLABELLED).all() and (label == UNLABELLED).sum() == 6


def test_instances_cut_touching_objects_apart() -> None:
    mask = two_objects()
    instances = np.zeros((10, 12), int)
    instances[:, :7], instances[:, 7:] = 3, 9
    label = largest_box(mask, instances)
    assert (label[5:9, 7:10] == UNLABELLED).all()
    assert (label[1:9, 1:7] == 1).all()


def test_an_empty_mask_has_no_box() -> None:
    assert not largest_box(np.zeros((5, 6), np.uint8)).any()


def test_objects_of_other_ways_are_not_background() -> None:
    mask = np.array([[7, 3, 0, 255, 5]], np.uint8)
    assert support_label(mask, 7, others=(7, 3)).tolist() == [[1, UNLABELLED, 0, 255, 0]]
    assert support_label(mask, 3, void="background", others=(7, 3)).tolist() == [[UNLABELLED, 1, 0, 0, 0]]
