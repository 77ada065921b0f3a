"""Preparing a folder of one's own again: what became stale goes, what is another's stays."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewseg.dataset.prepare.options import Options
from fewseg.dataset.prepare.run_folder import prepare_folder
from fewseg.dataset.prepare.verify import verify
from fewseg.dataset.reading.mask import read_mask
from fewseg.util.errors import DataError
from tests.dataset.prepare.own_pictures import NAMES, draw, mask_of, photograph, prepare, save


def files(root):
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


class TestPreparingAgain:
    """A picture less, one with another name, one in another format."""

    @pytest.fixture(params=["index", "class folders"])
    def changed(self, request, tmp_path):
        source, root = draw(tmp_path / "own", request.param), tmp_path / "data"
        if request.param == "index":
            (source / "classes.txt").write_text("\n".join(NAMES))
        prepare(source, root)
        for path in source.rglob("street 3.*"):
            path.unlink()
        for path in list(source.rglob("street 4.*")):
            path.rename(path.with_stem("lane_4"))
        for path in list((source / "images").glob("street 5.*")):
            Image.open(path).convert("RGB").save(path.with_suffix(".jpg"))
            path.unlink()
        return source, root

    def test_what_no_longer_belongs_is_removed(self, changed, tmp_path, caplog):
        source, root = changed
        prepare(source, root)
        assert "data: 5 files of an earlier preparation removed" in caplog.text
        prepare(source, tmp_path / "fresh")
        kept = {path for path in files(root) if not path.startswith(".fewseg")}
        assert kept == {path for path in files(tmp_path / "fresh") if not path.startswith(".fewseg")}
        assert verify("folder", root, workers=1) == []

    def test_files_of_others_and_edited_ones_stay(self, changed, caplog):
        source, root = changed
        save(root / "JPEGImages/mine.png", photograph(19))
        edited = root / "SegmentationClass/street_3.png"
        edited.unlink()
        save(edited, mask_of(8))
        prepare(source, root)
        assert "1 files of an earlier preparation were changed since and stay" in caplog.text
        assert "data: 4 files of an earlier preparation removed" in caplog.text
        assert edited.is_file() and (root / "JPEGImages/mine.png").is_file()
        findings = verify("folder", root, workers=1)
        assert [(f.problem, f.where, f.serious) for f in findings] == [
            (
                "file that no list names",
                ("JPEGImages/mine.png", "SegmentationClass/street_3.png"),
                False,
            )
        ]

    def test_an_edited_file_is_not_replaced(self, changed):
        source, root = changed
        edited = root / "SegmentationClass/street_1.png"
        edited.unlink()
        save(edited, mask_of(8))
        with pytest.raises(DataError, match=r"street_1\.png: was changed since it was made; delete it"):
            prepare(source, root)
        edited.unlink()
        prepare(source, root)
        np.testing.assert_array_equal(read_mask(edited) > 0, mask_of(1) > 0)

    def test_what_an_interrupted_run_began_is_removed_too(self, changed, monkeypatch):
        source, root = changed
        with monkeypatch.context() as broken:
            broken.setattr("fewseg.dataset.prepare.run_folder.divide", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                prepare(source, root)
        assert (root / "SegmentationClass/lane_4.png").is_file()
        for path in source.rglob("lane_4.*"):
            path.unlink()
        prepare(source, root)
        assert not [path for path in files(root) if "lane_4" in path or "street_4" in path]

    def test_a_record_that_names_files_elsewhere_removes_none(self, changed, tmp_path):
        source, root = changed
        (tmp_path / "precious.txt").write_text("")
        with (root / ".fewseg/made.crc32").open("a") as record:
            record.write(f"- ../precious.txt\n- {tmp_path}/precious.txt\nnonsense\n")
        prepare(source, root)
        assert (tmp_path / "precious.txt").is_file()

    def test_the_root_of_another_data_set_is_left_alone(self, changed):
        source, root = changed
        (root / ".fewseg/prepared.json").write_text('{"data_set": "coco", "lists": {}}')
        before = files(root)
        with pytest.raises(DataError, match="data: holds coco, not folder; give another --root"):
            prepare(source, root)
        assert files(root) == before

    def test_an_archive_of_the_same_name_is_unpacked_on_its_own(self, tmp_path):
        options = Options(tmp_path / "data", tmp_path / "downloads", workers=1)
        for count in (12, 7):
            source = draw(tmp_path / f"own{count}", "index", count)
            archive = Path(shutil.make_archive(str(tmp_path / "own"), "zip", source))
            prepare_folder(options, archive)
            assert len([path for path in files(tmp_path / "data") if path.startswith("JPEGImages")]) == count

    def test_folds_that_nobody_edited_follow_other_classes(self, tmp_path):
        root = tmp_path / "data"
        prepare(draw(tmp_path / "own", "class folders"), root)
        save(tmp_path / "other/images/a.png", photograph(0))
        save(tmp_path / "other/images/b.png", photograph(1))
        for name in "ab":
            save(tmp_path / f"other/masks/cape/{name}.png", 255 * (mask_of(0) > 0))
        edited = (root / "folds.txt").read_text() + "# mine\n"
        assert "1 classes, 1 folds of 1" in prepare(tmp_path / "other", root)
        (root / "folds.txt").write_text(edited)
        with pytest.raises(DataError, match="there is no class"):
            prepare(tmp_path / "other", root)

    def test_edited_folds_keep_their_comments(self, tmp_path):
        source, root = draw(tmp_path / "own", "class folders"), tmp_path / "data"
        prepare(source, root)
        (root / "folds.txt").write_text("# mine\nhat, bag\n")
        prepare(source, root)
        assert (root / "folds.txt").read_text() == "# mine\nhat, bag\n"
