"""Weak annotations and what the objects of other ways become."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from fewseg.dataset.classes.fold import open_fold
from fewseg.dataset.episodes.protocol import load_protocol
from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.dataset.loading.few_shot import support_label
from fewseg.dataset.weak.annotations import ANNOTATIONS, annotate, largest_box
from fewseg.dataset.weak.scribble import longest_path, stroke, strokes, thinned
from fewseg.model.contract import UNLABELLED
from fewseg.util.errors import DataError


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


def test_objects_are_told_apart_by_the_masks_of_voc_where_they_are(tmp_path: Path) -> None:
    mask, objects = two_objects(), np.zeros((10, 12), np.uint8)
    mask[1:9, 5:7] = 1
    objects[1:9, 5:7], objects[5:9, 7:10], objects[1:3, 1:4] = 1, 2, 3
    folders = {"JPEGImages": np.zeros((10, 12, 3), np.uint8), "SegmentationClass": mask}
    for name in ("a", "b"):
        for folder, pixels in folders.items():
            (tmp_path / folder).mkdir(exist_ok=True)
            suffix = "png" if pixels.ndim == 2 else "jpg"
            cv2.imwrite(str(tmp_path / folder / f"{name}.{suffix}"), pixels)
    (tmp_path / "SegmentationObject").mkdir()
    cv2.imwrite(str(tmp_path / "SegmentationObject/a.png"), objects)
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("a\nb\n")
    (tmp_path / "classes.txt").write_text("1 one\n2 two\n3 three\n4 four\n")
    fold = open_fold("folder", tmp_path, 0, load_protocol("bam", "folder"))
    episodes = EpisodeSet(fold, [], "largest_bbox")
    (_, by_object), (_, by_part) = (episodes.annotated(name, 1) for name in "ab")
    assert (by_object[1:9, 5:7] == 1).all() and (by_object == 1).sum() == 16
    assert (by_part[1:9, 5:10] == 1).all() and (by_part == 1).sum() == 40
    cv2.imwrite(str(tmp_path / "SegmentationObject/b.png"), objects[:5])
    with pytest.raises(DataError, match=r"SegmentationObject/b.png: the mask is 12x5, but its image"):
        episodes.annotated("b", 1)


def test_an_empty_mask_has_no_box() -> None:
    assert not largest_box(np.zeros((5, 6), np.uint8)).any()


def test_objects_of_other_ways_are_not_background() -> None:
    mask = np.array([[7, 3, 0, 255, 5]], np.uint8)
    assert support_label(mask, 7, others=(7, 3)).tolist() == [[1, UNLABELLED, 0, 255, 0]]
    assert support_label(mask, 3, void="background", others=(7, 3)).tolist() == [[UNLABELLED, 1, 0, 0, 0]]


def disk(radius: int = 20, size: int = 64) -> np.ndarray:
    return cv2.circle(np.zeros((size, size), np.uint8), (size // 2, size // 2), radius, 1, -1)


def test_a_skeleton_is_thin_and_in_one_piece() -> None:
    cross = np.zeros((60, 60), np.uint8)
    cross[25:35, 5:55] = cross[5:55, 25:35] = 1
    skeleton = thinned(cross)
    assert 60 < skeleton.sum() < 110 and not (skeleton & ~cross & 1).any()
    assert cv2.connectedComponents(skeleton)[0] == 2
    assert not cv2.erode(skeleton, np.ones((2, 2), np.uint8)).any()


def test_the_longest_path_of_a_circle_with_a_tail_cuts_the_circle() -> None:
    skeleton = np.zeros((9, 20), np.uint8)
    skeleton[2, 2:6] = skeleton[6, 2:6] = skeleton[2:7, 2] = skeleton[2:7, 5] = 1
    skeleton[4, 6:18] = 1
    path = longest_path(skeleton)
    assert len(path) == len({tuple(point) for point in path.tolist()})
    assert (np.abs(np.diff(path, axis=0)).max(1) == 1).all()
    assert [4, 17] in path[[0, -1]].tolist() and len(path) > 18


def test_a_stroke_follows_its_object() -> None:
    bar = np.zeros((50, 200), np.uint8)
    bar[20:34, 10:190] = 1
    drawn = stroke(bar)
    rows, columns = np.nonzero(drawn)
    assert columns.min() < 30 and columns.max() > 170 and (abs(rows - 26.5) < 3).all()
    assert len(strokes(two_objects())) == 2


def test_what_is_too_small_for_a_stroke_gets_a_dot() -> None:
    speck = np.zeros((9, 9), np.uint8)
    speck[4, 4:6] = 1
    assert stroke(speck).sum() == 1 and (stroke(speck) <= speck).all()


def test_a_line_too_thin_to_shrink_gets_a_dot() -> None:
    line = np.zeros((600, 600), np.uint8)
    line[range(600), range(600)] = 1
    assert stroke(line).sum() == 1 and (stroke(line) <= line).all()


def test_scribbles_leave_open_what_they_do_not_touch() -> None:
    mask = disk()
    mask[disk(23) - mask == 1] = 255
    label = annotate(mask, "scribble")
    assert set(np.unique(label)) == {0, 1, UNLABELLED}
    assert (mask[label == 1] == 1).all() and (mask[label == 0] == 0).all()
    assert (label == UNLABELLED).mean() > 0.9


def test_scribbles_depend_on_image_and_seed_alone() -> None:
    mask = np.zeros((40, 120), np.uint8)
    for left in range(5, 120, 20):
        mask[10:30, left : left + 12] = 1
    same = [annotate(mask, "scribble", seed=3, name="a") for _ in range(2)]
    assert np.array_equal(*same)
    others = [annotate(mask, "scribble", seed=seed, name="a") for seed in range(12)]
    assert len({label.tobytes() for label in others}) > 2


@pytest.mark.parametrize("annotation", [kind for kind in ANNOTATIONS if kind != "mask"])
def test_an_empty_mask_is_named(annotation: str) -> None:
    with pytest.raises(DataError, match=f"2007_1: the mask shows nothing to draw a {annotation} of"):
        annotate(np.zeros((5, 6), np.uint8), annotation, name="2007_1")
