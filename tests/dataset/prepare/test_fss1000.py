"""FSS-1000: class folders, both kinds of masks, more classes than a byte can number."""

from __future__ import annotations

import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fewseg.dataset.classes.fold import open_fold
from fewseg.dataset.episodes.protocol import load_protocol
from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.dataset.loading.few_shot import EpisodeDataset
from fewseg.dataset.prepare import fss1000
from fewseg.dataset.prepare.options import Options
from fewseg.dataset.prepare.run import prepare_fss1000
from fewseg.dataset.prepare.verify import verify
from fewseg.dataset.reading.mask import read_mask
from fewseg.dataset.reading.transform import TrainTransform, class_table, look_up
from fewseg.util.errors import DataError

IMAGES = 3


def draw(root, classes, nested=False):
    """Draw classes with masks of 0/1 and of 0/255 in turn, the latter in colour."""
    for number, name in enumerate(classes):
        for i in range(1, IMAGES + 1):
            folders = ("image", "label") if nested else (".", ".")
            image, mask = (root / name / folder for folder in folders)
            for folder in (image, mask):
                folder.mkdir(parents=True, exist_ok=True)
            shape = np.zeros((8, 8), np.uint8)
            shape[i : i + 3, 2:5] = 1
            pixels = shape if number % 2 else np.repeat(shape[..., None] * 255, 3, axis=2)
            Image.fromarray(pixels).save(mask / f"{i}.png")
            Image.fromarray(np.full((8, 8, 3), (number * 7 + i) % 256, np.uint8)).save(image / f"{i}.jpg")
    return root


def options(root, **given):
    return Options(root, root.parent / "downloads", workers=1, **given)


def write(path, names):
    path.write_text("\n".join(names) + "\n")
    return path


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """300 classes, of which the last 20 are for testing: their ids lie beyond 255."""
    folder = tmp_path_factory.mktemp("fss")
    names = ["abe's_flyingfish", *(f"class_{i:03}" for i in range(299))]
    source = draw(folder / "fewshot_data/fewshot_data", names)
    test = write(folder / "test.txt", names[-20:])
    said = prepare_fss1000(options(folder / "root", subset=True), source.parent, test)
    assert "train 210, val 70, test 20 classes" in said
    return folder / "root"


def open_root(root):
    protocol = load_protocol("hsnet", "fss1000", min_area=0, query_order="pairs")
    return open_fold("fss1000", root, 0, protocol)


def test_masks_become_binary_and_images_stay(prepared):
    for name in ("abe's_flyingfish", "class_000"):
        mask = read_mask(prepared / f"SegmentationClass/{name}/2.png")
        assert mask.sum() == 9 and set(mask.flat) == {0, 1}
        assert (prepared / f"JPEGImages/{name}/2.jpg").is_file()


def test_ids_skip_void_and_go_beyond_a_byte(prepared):
    split = open_root(prepared).classes
    assert len(split.novel) == 20 and max(split.novel) == 301 and split.names[301] == "class_298"
    assert 255 not in (*split.novel, *split.base) and split.names[255] == "void"
    assert len(split.base) == 210 and split.names[1] == "abe's_flyingfish"


def test_every_test_image_is_a_query_once(prepared):
    fold = open_root(prepared)
    manifest = fold.manifest(0, 1, episodes=20 * IMAGES)
    assert len({spec.query for spec in manifest}) == 60
    for spec in manifest:
        (class_id,), ((support,),) = spec.class_ids, spec.supports
        name = fold.classes.names[class_id]
        assert spec.query.startswith(f"{name}/") and support.startswith(f"{name}/") and support != spec.query


def test_labels_beyond_a_byte_reach_the_network(prepared):
    fold = open_root(prepared)
    manifest = fold.manifest(0, 1, episodes=60)
    protocol = fold.protocol.with_overrides(input_size=8, resize="stretch", label_size="input")
    images, spec = EpisodeSet(replace(fold, protocol=protocol), [manifest]), manifest[59]
    _, label = images.load_query(spec.query)
    assert label.dtype == np.uint16 and set(np.unique(label)) == {0, spec.class_ids[0]}
    assert look_up(label, class_table(spec.class_ids)).sum() == 9
    assert look_up(label, class_table((3,))).sum() == 0
    _, support = images.load_support(spec.supports[0][0], spec.class_ids[0])
    assert support.sum() == 9
    data = EpisodeDataset(
        fold.train_lists(1), fold.classes, TrainTransform(8, (1, 1), (0, 0)), shot=1, seed=0
    )
    batch = data[0, 0]
    assert batch.episode.query_mask.eq(1).sum() > 0 and batch.episode.support_mask.eq(1).sum() > 0


def test_the_doctor_is_content_and_names_a_class_in_two_lists(prepared, tmp_path):
    findings = verify("fss1000", prepared, subset=True, workers=1)
    assert {f.problem for f in findings if f.serious} <= {"same image in training and test"}
    wrong = verify("fss1000", prepared, workers=1)
    assert "list without the official number of images" in {f.problem for f in wrong}
    both = prepared / "ImageSets/Segmentation/test.txt"
    with pytest.raises(DataError, match=r"tests 20 classes that .* trains on"):
        open_fold("fss1000", prepared, 0, load_protocol("hsnet"), train_list=both)
    with pytest.raises(DataError, match="fold 0 only"):
        open_fold("fss1000", prepared, 1, load_protocol("hsnet"))


def test_a_zip_of_nested_folders(tmp_path):
    source = draw(tmp_path / "support", ["ab cd", "ef", "gh", "ij", "kl", "mn"], nested=True)
    archive = tmp_path / "fss.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(source.rglob("*")):
            file.write(path, f"fewshot/support/{path.relative_to(source)}")
    test = write(tmp_path / "test.txt", ["ab cd"])
    said = prepare_fss1000(options(tmp_path / "root", subset=True), archive, test)
    assert "train 4, val 1, test 1 classes" in said
    assert (tmp_path / "root/JPEGImages/ab_cd/1.jpg").is_file()


def test_the_published_split(shared):
    lists = shared / "splits" / "hsnet" / "fss"
    published = {
        part: fss1000.read_classes(lists / f"{file}.txt")
        for part, file in (("train", "trn"), ("val", "val"), ("test", "test"))
    }
    official = fss1000.read_classes(shared / "splits" / "fss1000_test.txt")
    every = [name for names in published.values() for name in names]
    found = fss1000.split_classes(every, official, published["val"])
    assert {part: set(names) for part, names in found.items()} == {p: set(n) for p, n in published.items()}
    drawn = fss1000.split_classes(every, official, seed=1)
    assert {part: len(names) for part, names in drawn.items()} == fss1000.COUNTS
    assert drawn["val"] != fss1000.split_classes(every, official, seed=2)["val"]
    with pytest.raises(DataError, match=r"1 test classes have no folder, first .*--subset"):
        fss1000.split_classes([n for n in every if n != official[0]], official)
    with pytest.raises(DataError, match="a test class and a validation class"):
        fss1000.split_classes(every, official, official)


def test_damage_and_absence_are_one_line(tmp_path):
    with pytest.raises(DataError, match="no class folders"):
        fss1000.find_classes(tmp_path)
    source = draw(tmp_path / "fss", ["a", "b"])
    (source / "a/1.png").write_bytes(b"\x89PNG nothing")
    test = write(tmp_path / "test.txt", ["a"])
    with pytest.raises(DataError, match=r"a/1\.png: the mask is corrupt or truncated"):
        prepare_fss1000(options(tmp_path / "root", subset=True), source, test)
    with pytest.raises(DataError, match="the list of classes cannot be read"):
        fss1000.read_classes(tmp_path / "missing.txt")
