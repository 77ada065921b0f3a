"""PASCAL-5i: from VOC and SBD, or from ready masks, folders or archives."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import PurePosixPath

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from fewseg.dataset.prepare import pascal
from fewseg.dataset.prepare.files import put
from fewseg.dataset.prepare.options import Options
from fewseg.dataset.prepare.run import prepare_pascal
from fewseg.dataset.prepare.verify import verify
from fewseg.dataset.reading.mask import read_mask
from fewseg.util.errors import DataError

TRAIN, VAL = ("2007_01", "2007_02"), ("2007_03",)
DETECTION = (*TRAIN, "2008_10", "2008_11")
SBD = ("2007_01", "2007_03", "2008_10", "2008_11", "2008_20")


def mask_of(name: str) -> np.ndarray:
    return np.full((6, 8), int(name[-2:]) % 20 + 1, np.uint8)


def write_lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def devkit(tmp_path):
    """A VOC and an SBD of a few images."""
    voc, sbd = tmp_path / "VOCdevkit/VOC2012", tmp_path / "benchmark_RELEASE/dataset"
    for folder in (voc / "JPEGImages", voc / "SegmentationClass", sbd / "cls"):
        folder.mkdir(parents=True)
    write_lines(voc / "ImageSets/Segmentation/train.txt", TRAIN)
    write_lines(voc / "ImageSets/Segmentation/val.txt", VAL)
    write_lines(voc / "ImageSets/Main/train.txt", DETECTION)
    for number, name in enumerate({*TRAIN, *VAL, *SBD}):
        Image.fromarray(np.full((6, 8, 3), 20 * number, np.uint8)).save(voc / f"JPEGImages/{name}.jpg")
    for name in (*TRAIN, *VAL):
        mask = mask_of(name)
        mask[0] = 255  # VOC draws void, SBD does not
        Image.fromarray(mask).save(voc / f"SegmentationClass/{name}.png")
    for name in SBD:
        savemat(sbd / f"cls/{name}.mat", {"GTcls": {"Segmentation": mask_of(name), "Boundaries": 0}})
    return tmp_path


@pytest.fixture
def official(monkeypatch):
    """Take the counts of the small set for the official ones."""
    monkeypatch.setattr(pascal, "COUNTS", {"train": 2, "val": 1, "merged": 4, "trainaug": 5})
    monkeypatch.setattr(pascal, "SBD_COUNT", 5)
    counts = {"train": 2, "val": 1, "voc_sbd_merge_noduplicate": 4, "trainaug": 5}
    monkeypatch.setitem(
        __import__("fewseg.dataset.prepare.verify", fromlist=["COUNTS"]).COUNTS, "pascal", counts
    )


def options(tmp_path, **given):
    return Options(tmp_path / "root", tmp_path / "downloads", tmp_path / "lists", workers=1, **given)


def ids(path):
    return [
        line.split()[0].removeprefix("JPEGImages/").removesuffix(".jpg")
        for line in path.read_text().splitlines()
    ]


def assert_prepared(tmp_path, root="root", merged=("2007_01", "2008_10", "2008_11", "2007_02")):
    lists, root = tmp_path / "lists", tmp_path / root
    assert ids(lists / "voc_sbd_merge_noduplicate.txt") == [*merged]
    assert ids(lists / "val.txt") == ["2007_03"] and ids(lists / "train.txt") == [*TRAIN]
    assert ids(lists / "trainaug.txt") == ["2007_01", "2007_02", "2008_10", "2008_11", "2008_20"]
    assert (read_mask(root / "SegmentationClassAug/2007_01.png")[0] == 255).all()  # VOC's, not SBD's
    np.testing.assert_array_equal(read_mask(root / "SegmentationClassAug/2008_10.png"), mask_of("2008_10"))
    assert (root / "JPEGImages/2008_20.jpg").is_file()


def test_from_folders_then_again(devkit, official):
    given = {"voc": devkit / "VOCdevkit", "sbd": devkit / "benchmark_RELEASE"}
    assert "6 masks made, train 2, val 1, merged 4, trainaug 5" in prepare_pascal(options(devkit), **given)
    assert_prepared(devkit)
    assert "0 masks made" in prepare_pascal(options(devkit), **given)
    findings = verify("pascal", devkit / "root", workers=1)
    assert {f.problem for f in findings if f.serious} == {"class without a pixel in any list"}
    # 48 pixels are below the area rule, so the folds list nothing that could be compared
    (devkit / "root/SegmentationClassAug/2008_20.png").write_bytes(
        (devkit / "root/SegmentationClassAug/2008_10.png").read_bytes()
    )
    (devkit / "root/SegmentationClassAug/2008_11.png").unlink()
    found = {f.problem: f.where for f in verify("pascal", devkit / "root", workers=1)}
    assert found["mask changed since it was written"] == ("SegmentationClassAug/2008_20.png",)
    assert found["mask missing"] == ("SegmentationClassAug/2008_11.png",)


def test_from_archives_of_a_mirror(devkit, official, server):
    mirror = server.mirror("good")
    for archive, folder in ((pascal.VOC, "VOCdevkit"), (pascal.SBD, "benchmark_RELEASE")):
        with tarfile.open(devkit / archive.name, "w:gz" if archive.name.endswith("tgz") else "w") as tar:
            tar.add(devkit / folder, folder)
        server.content[archive.name] = (devkit / archive.name).read_bytes()
    sums = {name: "md5:" + hashlib.md5(content).hexdigest() for name, content in server.content.items()}
    prepare_pascal(options(devkit, mirrors=[mirror], checksums=sums))
    assert_prepared(devkit)
    prepare_pascal(options(devkit, mirrors=[mirror], checksums=sums))
    assert server.requests["good"] == 2


@pytest.mark.parametrize("palette", [True, False])
def test_ready_masks_replace_sbd(devkit, official, palette):
    prepare_pascal(options(devkit), devkit / "VOCdevkit", devkit / "benchmark_RELEASE")
    ready = devkit / "ready"
    ready.mkdir()
    for path in (devkit / "root/SegmentationClassAug").iterdir():
        mask = Image.fromarray(read_mask(path))
        if palette:
            mask.putpalette(list(range(256)) * 3)
        mask.save(ready / path.name)
    other = Options(devkit / "other", devkit / "downloads", devkit / "lists", workers=1)
    prepare_pascal(other, voc=devkit / "VOCdevkit", masks=ready)
    # Ready masks do not tell which of them are SBD's, so the list is plainly sorted.
    assert_prepared(devkit, "other", ("2007_01", "2007_02", "2008_10", "2008_11"))
    Image.new("RGB", (8, 6), (128, 0, 0)).save(ready / "2008_10.png")
    (devkit / "other/SegmentationClassAug/2008_10.png").unlink()
    with pytest.raises(DataError, match="the mask has mode RGB"):
        prepare_pascal(other, voc=devkit / "VOCdevkit", masks=ready)


def test_without_the_detection_list_sbds_own_list_serves(devkit, official):
    (devkit / "VOCdevkit/VOC2012/ImageSets/Main/train.txt").unlink()
    given = {"voc": devkit / "VOCdevkit", "sbd": devkit / "benchmark_RELEASE/dataset"}
    with pytest.raises(DataError, match=r"Main/train\.txt: the list is missing.*train_noval\.txt"):
        prepare_pascal(options(devkit), **given)
    prepare_pascal(options(devkit, subset=True), **given)
    assert sorted(ids(devkit / "lists/voc_sbd_merge_noduplicate.txt")) == [*TRAIN]
    write_lines(devkit / "benchmark_RELEASE/dataset/train_noval.txt", ["2007_01", "2008_10", "2008_11"])
    prepare_pascal(options(devkit), **given)
    assert_prepared(devkit)


def test_counts_damage_and_absence_are_one_line(devkit):
    voc, sbd = devkit / "VOCdevkit", devkit / "benchmark_RELEASE"
    with pytest.raises(DataError, match="SBD has 5 images instead of 11355; the copy is not complete"):
        prepare_pascal(options(devkit), voc, sbd)
    assert "1 images" not in prepare_pascal(options(devkit, subset=True), voc, sbd)
    with pytest.raises(DataError, match="no VOC 2012 here"):
        prepare_pascal(options(devkit), sbd, sbd)
    with pytest.raises(DataError, match="no SBD here"):
        prepare_pascal(options(devkit), voc, voc)
    damaged = devkit / "benchmark.tgz"
    with tarfile.open(damaged, "w:gz") as tar:
        tar.add(sbd, "benchmark_RELEASE")
    damaged.write_bytes(damaged.read_bytes()[:-400])
    with pytest.raises(DataError, match=r"wrong checksum, md5:\w+ instead of md5:82b4d.*kept as it is"):
        prepare_pascal(options(devkit), voc, damaged)
    with pytest.raises(DataError, match=r"damaged or truncated.*it stays where it is"):
        prepare_pascal(options(devkit, subset=True), voc, damaged)
    (sbd / "dataset/cls/2008_10.mat").write_bytes(b"damaged")
    (devkit / "root/SegmentationClassAug/2008_10.png").unlink()
    with pytest.raises(DataError, match=r"2008_10\.mat: no class mask of SBD can be read"):
        prepare_pascal(options(devkit, subset=True), voc, sbd)


def test_an_interrupted_unpacking_is_completed(devkit, official, monkeypatch):
    archive = devkit / pascal.VOC.name
    with tarfile.open(archive, "w") as tar:
        tar.add(devkit / "VOCdevkit", "VOCdevkit")
    sums = {archive.name: "md5:" + hashlib.md5(archive.read_bytes()).hexdigest()}
    (devkit / "downloads").mkdir()
    archive.rename(devkit / "downloads" / archive.name)
    written = []

    def interrupted(path, write):
        written.append(path)
        if len(written) > 5:
            raise KeyboardInterrupt
        put(path, write)

    monkeypatch.setattr("fewseg.dataset.prepare.files.put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare_pascal(options(devkit, checksums=sums), sbd=devkit / "benchmark_RELEASE")
    monkeypatch.undo()
    monkeypatch.setattr(pascal, "COUNTS", {"train": 2, "val": 1, "merged": 4, "trainaug": 5})
    monkeypatch.setattr(pascal, "SBD_COUNT", 5)
    for _ in range(2):
        prepare_pascal(options(devkit, checksums=sums), sbd=devkit / "benchmark_RELEASE")
        assert_prepared(devkit)


def test_images_without_photograph_are_told_or_left_out(devkit, official, caplog):
    given = {"voc": devkit / "VOCdevkit", "sbd": devkit / "benchmark_RELEASE"}
    (devkit / "VOCdevkit/VOC2012/JPEGImages/2008_20.jpg").unlink()
    prepare_pascal(options(devkit), **given)
    assert "1 listed images are missing, first 2008_20.jpg" in caplog.text
    assert len(ids(devkit / "lists/trainaug.txt")) == 5
    prepare_pascal(options(devkit, subset=True), **given)
    assert "2008_20" not in ids(devkit / "lists/trainaug.txt")


def test_a_list_that_climbs_out_is_refused(devkit):
    voc = devkit / "VOCdevkit"
    with (voc / "VOC2012/ImageSets/Segmentation/train.txt").open("a") as file:
        file.write("../../../2007_01\n")
    with pytest.raises(DataError, match=r"train\.txt: '\.\./\.\./\.\./2007_01' leads out of its folder"):
        prepare_pascal(options(devkit, subset=True), voc)
    assert not (devkit / "root/SegmentationClassAug").exists()


def test_an_archive_that_climbs_out_is_refused(devkit):
    evil = devkit / "evil.tar"
    with tarfile.open(evil, "w") as tar:
        tar.add(devkit / "VOCdevkit/VOC2012/JPEGImages/2007_01.jpg", "dataset/cls/../../../../out.txt")
    with pytest.raises(DataError, match="would be written outside"):
        prepare_pascal(options(devkit), devkit / "VOCdevkit", evil)


def test_the_published_lists_come_from_the_rule(shared, tmp_path):
    """Lists of the real ids, with VOC's detection list taken from the published training list."""
    folder = shared / "splits" / "pascal"
    published = {part: ids(folder / f"{part}.txt") for part in ("train_5953", "val_1449")}
    sbd_train = published["train_5953"][:5623]
    rest = published["train_5953"][5623:]
    voc = tmp_path / "VOC2012"
    write_lines(voc / "ImageSets/Segmentation/val.txt", published["val_1449"])
    write_lines(voc / "ImageSets/Segmentation/train.txt", [*sbd_train[:1134], *rest])
    write_lines(voc / "ImageSets/Main/train.txt", [*sbd_train, *rest])
    (tmp_path / "sbd/cls").mkdir(parents=True)
    for name in [*sbd_train, *published["val_1449"]]:
        (tmp_path / f"sbd/cls/{name}.mat").touch()
    lists = pascal.make_lists(pascal.Sources(voc, tmp_path / "sbd"), subset=True)
    assert lists["merged"] == published["train_5953"] and lists["val"] == published["val_1449"]
    assert len(lists["train"]) == pascal.COUNTS["train"]


@pytest.mark.parametrize("masks", ["SegmentationClass", "SegmentationClassAug"])
@pytest.mark.parametrize("form", ["tar", "folder"])
def test_a_slice_in_one_archive_or_folder(tmp_path, masks, form):
    inner = tmp_path / "my_slice"
    write_lines(inner / "ImageSets/Segmentation/train.txt", TRAIN)
    write_lines(inner / "ImageSets/Segmentation/val.txt", VAL)
    for name in (*TRAIN, *VAL, "2008_20"):
        for kind, suffix in (("JPEGImages", "jpg"), (masks, "png")):
            (inner / kind).mkdir(exist_ok=True)
            Image.fromarray(mask_of(name)).save(inner / f"{kind}/{name}.{suffix}")
    (inner / "README.md").write_text("a slice")
    source = inner
    if form == "tar":
        source = tmp_path / "slice.tar"
        with tarfile.open(source, "w") as tar:
            tar.add(inner, "my_slice")
    told = prepare_pascal(options(tmp_path, subset=True), source)
    assert "train 2, val 1, merged 2, trainaug 3 images" in told
    assert ids(tmp_path / "lists/trainaug.txt") == [*TRAIN, "2008_20"]
    np.testing.assert_array_equal(
        read_mask(tmp_path / "root/SegmentationClassAug/2008_20.png"), mask_of("2008_20")
    )
    assert (tmp_path / "root/JPEGImages/2007_03.jpg").is_file()
    findings = verify("pascal", tmp_path / "root", subset=True, workers=1)
    assert not [finding.problem for finding in findings if finding.serious]
    with pytest.raises(DataError, match="accept a part of the data set by --subset"):
        prepare_pascal(options(tmp_path), source, masks=tmp_path / "root/SegmentationClassAug")


def test_another_year_in_an_archive_is_left_aside():
    for name, place in (
        ("VOCdevkit/VOC2007/JPEGImages/1.jpg", None),
        ("VOCdevkit/VOC2012/JPEGImages/1.jpg", "JPEGImages/1.jpg"),
        ("VOCdevkit/VOC2012/ImageSets/Action/1.txt", None),
        ("VOCdevkit/VOC2012/Annotations/1.xml", None),
        ("VOCdevkit/VOC2012/SegmentationObject/1.png", "SegmentationObject/1.png"),
        ("./slice/ImageSets/Segmentation/val.txt", "ImageSets/Segmentation/val.txt"),
    ):
        found = pascal.choose_voc(PurePosixPath(name))
        assert (found and str(found)) == place
