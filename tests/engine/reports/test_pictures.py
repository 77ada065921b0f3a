"""Pictures show what they should, where they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewseg.dataset.reading.transform import Resize
from fewseg.engine.prediction.predict import query_paths, read_example
from fewseg.engine.reports.panels import foreground_iou, label_map
from fewseg.engine.reports.pictures import TILE, outline, overlay, panel
from fewseg.engine.reports.report import write_picture
from fewseg.util.errors import DataError

GREY = np.full((40, 60, 3), 128, np.uint8)
MASK = np.zeros((40, 60), np.uint8)
MASK[10:30, 20:40] = 1


def test_outline_touches_the_border_only():
    changed = (outline(GREY, MASK) != GREY).any(-1)
    assert changed[10, 20:40].all() and not changed[20, 30] and not changed[0].any()
    assert (GREY == 128).all()


def test_overlay_tints_the_object_only():
    changed = (overlay(GREY, MASK) != GREY).any(-1)
    assert np.array_equal(changed, MASK == 1)


def test_panel_holds_every_column():
    without = panel([(GREY, MASK)], GREY, None, MASK, title="title")
    shown = panel([(GREY, MASK)] * 9, GREY, MASK, MASK, title="title")
    assert without.dtype == np.uint8
    assert without.shape[1] > 3 * TILE
    assert 8 * TILE < shown.shape[1] < 9 * TILE  # five supports, query, truth, prediction


def test_labels_return_to_the_original_size():
    resize = Resize(64)
    height, width = 48, 96
    logits = torch.zeros(1, 2, 64, 64)
    logits[0, 1, :, :32] = 1
    logits[0, 1, 32:] = 9  # padding, which nobody sees
    labels = label_map(logits, resize, height, width)
    assert labels.shape == (height, width)
    assert labels[:, :47].all() and not labels[:, 49:].any()


def test_iou_leaves_void_out():
    truth = MASK.copy()
    truth[10:20] = 255
    assert foreground_iou(MASK, truth) == 1
    assert foreground_iou(np.zeros_like(MASK), truth) == 0


@pytest.mark.parametrize("value", [1, 7, 255])
def test_examples_may_be_drawn_in_any_value(tmp_path, value):
    image, mask = write_picture(tmp_path / "a.png", GREY), write_picture(tmp_path / "b.png", MASK * value)
    assert np.array_equal(read_example(image, mask).mask, MASK)


def test_examples_without_object_and_empty_folders_are_refused(tmp_path):
    image, mask = write_picture(tmp_path / "a.png", GREY), write_picture(tmp_path / "b.png", MASK * 0)
    with pytest.raises(DataError, match="marks no object"):
        read_example(image, mask)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image there"):
        query_paths(tmp_path / "empty")
