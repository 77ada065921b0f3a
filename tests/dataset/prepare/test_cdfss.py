"""The data sets of CD-FSS: from both layouts to class folders, and what is refused."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from fewseg.dataset.classes.fold import open_fold
from fewseg.dataset.episodes.protocol import load_protocol
from fewseg.dataset.prepare.cdfss.deepglobe import NAMES, stays
from fewseg.dataset.prepare.options import Options
from fewseg.dataset.prepare.run_cdfss import prepare_chest_xray, prepare_deepglobe, prepare_isic
from fewseg.dataset.prepare.verify import verify
from fewseg.dataset.reading.mask import read_image, read_mask
from fewseg.util.errors import DataError
from tests.dataset.prepare.cdfss_sources import land_cover, lesions, lungs, save, tiles

KINDS = {"1": ["ISIC_0000001", "ISIC_0000004"], "2": ["ISIC_0000002", "ISIC_0000003"]}


def options(root, **given):
    return Options(root, root.parent / "downloads", workers=1, **given)


def opened(data_set, root):
    return open_fold(data_set, root, 0, load_protocol("cdfss", data_set))


def table(path, classes, header=True):
    rows = [f"{picture},kind {name}" for name, pictures in classes.items() for picture in pictures]
    path.write_text("\n".join(["ID,Class"] * header + rows) + "\n")
    return path


def test_an_image_of_deepglobe_is_cut_into_tiles_of_its_classes(tmp_path):
    source, root = land_cover(tmp_path / "land-train"), tmp_path / "root"
    said = prepare_deepglobe(options(root), source)
    assert (
        "11 pairs of image and mask: agriculture 1, urban 2, rangeland 2, forest 3, water 2, barren 1" in said
    )
    fold = opened("deepglobe", root)
    assert fold.classes.names == ("background", *NAMES) and fold.classes.base == ()
    tile = root / "JPEGImages/urban/119_00.jpg"
    assert tile.samefile(root / "JPEGImages/agriculture/119_00.jpg")
    difference = read_image(tile).astype(int) - read_image(source / "119_sat.jpg")[:10, :10]
    assert np.abs(difference).mean() < 25  # noise that was compressed twice
    urban = read_mask(root / "SegmentationClass/urban/119_00.png")
    assert not urban[:4].any() and urban[4:].all()
    assert "forest/119_11" in fold.val_images.names and "forest/119_10" not in fold.val_images.names
    assert not any(finding.serious for finding in verify("deepglobe", root, workers=1))
    assert prepare_deepglobe(options(root), source) == said


def test_the_rarest_colour_of_a_tile_decides():
    tile = np.zeros((408, 408), np.uint8)
    assert not stays(tile)
    tile.flat[:7990] = 3
    assert not stays(tile)  # 4.7998 %
    tile.flat[:7991] = 3
    assert stays(tile)


def test_prepared_tiles_of_deepglobe_keep_their_order_of_classes(tmp_path):
    root = tmp_path / "root"
    prepare_deepglobe(options(root), tiles(tmp_path / "CDFSL/Deepglobe").parent)
    fold = opened("deepglobe", root)
    assert fold.classes.names[1:] == NAMES and len(fold.val_images) == 18
    image, mask = read_image(root / "JPEGImages/urban/1_sat_01.jpg"), root / "SegmentationClass/urban"
    assert np.array_equal(image, read_image(tmp_path / "CDFSL/Deepglobe/2/test/origin/1_sat_01.jpg"))
    assert set(np.unique(read_mask(mask / "1_sat_01.png"))) == {0, 1}
    with pytest.raises(DataError, match=r"^deepglobe: has no classes to train on: it tests models"):
        fold.train_lists(1)
    with pytest.raises(DataError, match="fold 0 only"):
        open_fold("deepglobe", root, 1, load_protocol("cdfss", "deepglobe"))


def test_isic_takes_its_classes_from_a_table_or_from_folders(tmp_path):
    flat = lesions(tmp_path / "flat", KINDS, nested=False)
    prepare_isic(options(tmp_path / "a"), flat, table(tmp_path / "class_id.csv", KINDS))
    fold = opened("isic", tmp_path / "a")
    assert fold.classes.names[1:] == ("kind_1", "kind_2")
    assert fold.val_images.names[:2] == ("kind_1/ISIC_0000001", "kind_1/ISIC_0000004")
    said = prepare_isic(options(tmp_path / "b"), lesions(tmp_path / "nested", KINDS, nested=True))
    assert said.endswith("isic, 4 pairs of image and mask: lesion_1 2, lesion_2 2")
    for root in (tmp_path / "a", tmp_path / "b"):
        assert not any(finding.serious for finding in verify("isic", root, workers=1))


def test_isic_from_the_two_archives_of_the_challenge(tmp_path):
    flat = lesions(tmp_path / "flat", KINDS, nested=False)
    source = tmp_path / "zips"
    source.mkdir()
    for folder in sorted(flat.iterdir()):
        with zipfile.ZipFile(source / f"{folder.name}.zip", "w") as file:
            for path in sorted(folder.iterdir()):
                file.write(path, f"{folder.name}/{path.name}")
    said = prepare_isic(options(tmp_path / "root"), source, table(tmp_path / "t.csv", KINDS, header=False))
    assert "kind_1 2, kind_2 2" in said
    with pytest.raises(DataError, match="the class of a picture is unknown"):
        prepare_isic(options(tmp_path / "root"), source)


def test_x_rays_without_a_mask_are_not_listed(tmp_path):
    root = tmp_path / "root"
    said = prepare_chest_xray(options(root), lungs(tmp_path / "Lung Segmentation"))
    assert said.endswith("chest_xray, 3 pairs of image and mask: lung 3")
    assert not any(finding.serious for finding in verify("chest_xray", root, workers=1))
    (root / "SegmentationClass/lung/CHNCXR_0000_1.png").unlink()
    found = [finding.problem for finding in verify("chest_xray", root, workers=1) if finding.serious]
    assert "mask missing" in found


def test_the_lungs_of_montgomery_are_united(tmp_path):
    source = lungs(tmp_path / "NLM", images=1)
    save(source / "Montgomery/CXR_png/MCUCXR_0001_0.png", np.zeros((8, 8), np.uint8))
    for side, columns in (("leftMask", slice(0, 3)), ("rightMask", slice(5, 8))):
        mask = np.zeros((8, 8), np.uint8)
        mask[2:6, columns] = 255
        save(source / f"Montgomery/ManualMask/{side}/MCUCXR_0001_0.png", mask)
    prepare_chest_xray(options(tmp_path / "root"), source)
    mask = read_mask(tmp_path / "root/SegmentationClass/lung/MCUCXR_0001_0.png")
    assert mask[3].tolist() == [1, 1, 1, 0, 0, 1, 1, 1]


class TestRefusals:
    def test_folders_without_the_data_set(self, tmp_path):
        for prepare in (prepare_deepglobe, prepare_isic, prepare_chest_xray):
            (tmp_path / "empty").mkdir(exist_ok=True)
            with pytest.raises(DataError, match=r"^\S+/empty: has (no|neither) [^\n]*; give the folder"):
                prepare(options(tmp_path / "root"), tmp_path / "empty")

    def test_a_colour_that_is_no_class(self, tmp_path):
        source = land_cover(tmp_path / "land-train")
        save(source / "119_mask.png", np.full((60, 60, 3), (255, 0, 0), np.uint8))
        with pytest.raises(DataError, match=r"119_mask.png: has red pixels"):
            prepare_deepglobe(options(tmp_path / "root"), source)

    def test_a_class_without_tiles(self, tmp_path):
        source = tiles(tmp_path / "Deepglobe")
        for path in (source / "4/test/origin").iterdir():
            path.unlink()
        with pytest.raises(DataError, match="origin: has no images of forest, class 4 of 6"):
            prepare_deepglobe(options(tmp_path / "root"), source)
        said = prepare_deepglobe(options(tmp_path / "part", subset=True), source)
        assert "forest" not in said and "barren 3" in said

    def test_a_mask_that_is_missing_or_of_another_size(self, tmp_path):
        source = tiles(tmp_path / "Deepglobe")
        save(source / "2/test/groundtruth/0_sat_00.png", np.zeros((9, 9), np.uint8))
        with pytest.raises(DataError, match="both must have the same size"):
            prepare_deepglobe(options(tmp_path / "root"), source)
        (source / "2/test/groundtruth/0_sat_00.png").unlink()
        with pytest.raises(DataError, match=r"0_sat_00.jpg: has no mask \(one of 1\)"):
            prepare_deepglobe(options(tmp_path / "root"), source)

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            ("ISIC_0000001\n", r"t.csv:1: expected image,class, found 1 fields"),
            ("ID,Class\n", "the table of classes is empty"),
            ("a,x\na,y\n", "t.csv:2: a is x already"),
            ("a,../x\n", r"t.csv:1: \.\./x cannot be the name of a class folder"),
            ("ISIC_0000001,x\n", "3 pictures have no class in the table, first ISIC_0000002"),
            (None, "ISIC_0000001.jpg: the class of a picture is unknown; give the table"),
        ],
    )
    def test_a_table_that_does_not_fit(self, tmp_path, lines, message):
        source = lesions(tmp_path / "flat", KINDS, nested=False)
        path = tmp_path / "t.csv"
        path.write_text(lines or "")
        with pytest.raises(DataError, match=message):
            prepare_isic(options(tmp_path / "root"), source, path if lines else None)

    def test_a_mask_without_an_x_ray(self, tmp_path):
        source = lungs(tmp_path / "lungs")
        (source / "CXR_png/CHNCXR_0001_1.png").unlink()
        with pytest.raises(
            DataError, match=r"CHNCXR_0001_1_mask.png: its X-ray CHNCXR_0001_1.png is missing"
        ):
            prepare_chest_xray(options(tmp_path / "root"), source)
        assert "lung 2" in prepare_chest_xray(options(tmp_path / "root", subset=True), source)
