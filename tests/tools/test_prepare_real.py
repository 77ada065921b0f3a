"""Small slices of real data through preparation, and a user's folder through training and testing."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import test as test_script
import train as train_script
from fewseg.dataset.classes.fold import open_fold
from fewseg.dataset.classes.own_names import read_class_names
from fewseg.dataset.episodes.protocol import load_protocol
from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.dataset.reading.mask import read_mask
from tools.prepare_data import ROOTS, main

TINY = (
    *("Data.train_h", "33", "Data.train_w", "33", "Data.val_size", "33", "batch_size", "8", "workers", "0"),
    *("epochs", "1", "val_episodes", "2", "Method.pretrained", "none", "panels", "1"),
    *("Method.backbone", "resnet18", "Method.backbone_options.width", "8"),
)
KEPT = 30


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def prepare(*arguments):
    assert main([str(argument) for argument in (*arguments, "--workers", 1)]) == 0


@pytest.fixture(scope="module")
def clothing(shared, tmp_path_factory):
    """Thirty photographs of clothing_mini in three layouts."""
    folder, source = tmp_path_factory.mktemp("clothing"), shared / "data" / "clothing_mini"
    names = (source / "classes.txt").read_text().split("\n")
    for image in sorted((source / "JPEGImages").iterdir())[:KEPT]:
        mask_path = source / f"SegmentationClass/{image.stem}.png"
        for layout, image_to, mask_to in (
            ("voc", "JPEGImages", "SegmentationClass"),
            ("beside", ".", "."),
            ("binary", "img", None),
        ):
            (folder / layout / image_to).mkdir(parents=True, exist_ok=True)
            shutil.copy(image, folder / layout / image_to / image.name)
            if mask_to:
                (folder / layout / mask_to).mkdir(exist_ok=True)
                shutil.copy(mask_path, folder / layout / mask_to / mask_path.name)
                shutil.copy(source / "classes.txt", folder / layout / "classes.txt")
        mask = read_mask(mask_path)
        for class_id in sorted(set(mask.flat) - {0}):
            path = folder / f"binary/masks/{names[class_id]}/{image.stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((mask == class_id).astype(np.uint8) * 255).save(path)
    return folder


def test_every_layout_of_a_real_folder_gives_the_same_data(clothing, tmp_path):
    named = {}
    for layout in ("voc", "beside", "binary"):
        root = tmp_path / layout
        prepare("folder", "--source", clothing / layout, "--root", root)
        names = np.array(read_class_names(root / "classes.txt"))
        found = sorted((root / "SegmentationClass").iterdir())
        named[layout] = [names[read_mask(path)] for path in found]
    for layout in ("beside", "binary"):
        for one, other in zip(named["voc"], named[layout], strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_real_folder_is_trained_on_and_tested(clothing, tmp_path):
    root = tmp_path / "data"
    prepare("folder", "--source", clothing / "voc", "--root", root, "--folds", 3)
    common = ["--config", "config/folder/panet_resnet50.yaml"]
    opts = ["--opts", "data_root", str(root), "split", "1", "save_path", str(tmp_path / "run"), *TINY]
    with pytest.warns(UserWarning, match="left out of this fold's episodes"):
        train_script.main([*common, *opts])
        test_script.main([*common, "--episodes", "3", "--seeds", "1", "--out", str(tmp_path / "out"), *opts])
    (result,) = (tmp_path / "out").glob("*.json")
    assert '"data_set": "folder"' in result.read_text()


def test_a_slice_of_voc_is_prepared_as_a_subset(shared, tmp_path):
    lists = tmp_path / "lists"
    source = shared / "data" / "pascal_mini"
    prepare("pascal", "--subset", "--voc", source, "--root", tmp_path / "voc", "--lists", lists)
    merged, val = lists / "voc_sbd_merge_noduplicate.txt", lists / "val.txt"
    assert (len(merged.read_text().splitlines()), len(val.read_text().splitlines())) == (226, 108)
    protocol = load_protocol("bam", min_area=840, small_classes="leave_out")
    with pytest.warns(UserWarning, match=r"chair \(9\)|bus \(6\)"):
        fold = open_fold("pascal", tmp_path / "voc", 1, protocol, train_list=merged, val_list=val)
        assert len(fold.manifest(0, 1, episodes=4)) == 4


def test_the_example_of_fss1000_is_a_class_of_its_own(shared, tmp_path):
    source = shared / "data" / "fss_example" / "support"
    prepare("folder", "--source", source, "--root", tmp_path / "tower", "--folds", 1, "--val-share", 0.6)
    protocol = load_protocol("hsnet", min_area=0)
    fold = open_fold("folder", tmp_path / "tower", 0, protocol)
    assert (fold.classes.novel, fold.classes.base) == ((1,), ())
    manifest = fold.manifest(0, 2, episodes=2)
    images, spec = EpisodeSet(fold, [manifest]), manifest[0]
    assert all(images.load_support(name, 1)[1].eq(1).any() for name in spec.supports[0])
    (tmp_path / "list.txt").write_text("support\n")
    prepare(
        *("fss1000", "--subset", "--source", source.parent, "--root", tmp_path / "fss"),
        *("--test-classes", tmp_path / "list.txt"),
    )
    assert len((tmp_path / "fss/ImageSets/Segmentation/test.txt").read_text().splitlines()) == 5


def test_every_data_set_has_a_root_that_its_config_reads():
    for data_set, root in ROOTS.items():
        path = train_script.__file__.replace(
            "train.py", f"config/_base_/dataset/{data_set.replace('-', '_')}.yaml"
        )
        with open(path, encoding="utf-8") as file:
            assert f"data_root: {root}\n" in file.read()
