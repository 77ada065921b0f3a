"""Images shared by the tests of this folder: the eight recorded ones, and six in VOC layout."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fewseg.dataset.lists.image_lists import read_image_list
from tests.parity.pictures import LIST, draw_pictures


@pytest.fixture
def pictures(tmp_path):
    """Folder of the images that the recorded cases are about."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    draw_pictures(folder)
    return folder


@pytest.fixture
def parity_set(pictures):
    """The list of these images and their label areas."""
    source = read_image_list(pictures, pictures / LIST)
    return source, source.index(progress=False)


@pytest.fixture
def voc(tmp_path, monkeypatch):
    """Six images in VOC layout: class 1 in four of them, class 6 in three, class 2 in one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "voc"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    names = [f"2007_{i:06}" for i in range(6)]
    for name, labels in zip(names, [(1,), (1, 6), (1, 6), (1,), (6,), (2,)], strict=True):
        mask = np.zeros((40, 50), np.uint8)
        for place, label in enumerate(labels):
            mask[:, 20 * place : 20 * place + 15] = label
        mask[0] = 255
        Image.fromarray(mask).save(root / f"SegmentationClass/{name}.png")
        Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(root / f"JPEGImages/{name}.jpg")
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(names) + "\n")
    return root
