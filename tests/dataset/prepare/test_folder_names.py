"""Names of pictures and classes, and masks with soft edges, in a folder of one's own."""

from __future__ import annotations

import numpy as np
import pytest

from fewseg.dataset.classes.fold import open_fold
from fewseg.dataset.episodes.protocol import load_protocol
from fewseg.dataset.prepare.verify import verify
from fewseg.dataset.reading.mask import read_mask
from fewseg.util.errors import DataError
from tests.dataset.prepare.own_pictures import NAMES, SIZE, draw, mask_of, photograph, prepare, save


def test_pictures_of_one_name_are_refused_and_found_afterwards(tmp_path, monkeypatch):
    source = draw(tmp_path / "own", "index")
    save(source / "images/street_3.png", photograph(13))
    save(source / "masks/street_3.png", mask_of(13))
    message = r"street 3\.png and .*street_3\.png would both be called street_3.*rename one"
    with pytest.raises(DataError, match=message):
        prepare(source, tmp_path / "data")
    monkeypatch.setattr("fewseg.dataset.prepare.own_layout._require_distinct", lambda _: None)
    prepare(source, tmp_path / "data", share=0.1)  # as earlier versions did
    with pytest.warns(UserWarning, match="repeat an earlier one"):
        findings = verify("folder", tmp_path / "data", workers=1)
    found = {finding.problem for finding in findings if finding.serious}
    assert found & {"line that a list repeats", "same image in training and test"}


class TestSoftMasks:
    def soft(self, folder, count=6):
        for number in range(count):
            edge = np.clip(np.linspace(-4, 5, SIZE[1]) * 255, 0, 255).astype(np.uint8)
            save(folder / f"images/{number}.png", photograph(number))
            save(folder / f"masks/{number}.png", np.tile(edge, (SIZE[0], 1)))
        return folder

    def test_they_are_one_class_and_that_is_said(self, tmp_path, caplog):
        assert "1 classes" in prepare(self.soft(tmp_path / "own"), tmp_path / "data")
        assert "6 of 6 masks are a binary mask with soft edges" in caplog.text
        assert set(read_mask(tmp_path / "data/SegmentationClass/0.png").flat) == {0, 1}

    @pytest.mark.parametrize("form", ["soft", "hard"])
    def test_one_per_picture_cannot_show_several_classes(self, tmp_path, form):
        source = self.soft(tmp_path / "own")
        if form == "hard":
            for number in range(6):
                save(source / f"masks/{number}.png", 255 * (mask_of(number) > 0))
        (source / "classes.txt").write_text("\n".join(NAMES))
        with pytest.raises(DataError, match=r"own: every mask is black and white.*classes\.txt names 3"):
            prepare(source, tmp_path / "data")

    def test_class_folders_may_have_blanks_in_their_names(self, tmp_path):
        for number in range(6):
            folder = tmp_path / "own" / ("black dog", "cat")[number % 2]
            save(folder / f"{number}.jpg", photograph(number))
            save(folder / f"{number}.png", 255 * (mask_of(number) > 0))
        (tmp_path / "own/classes.txt").write_text("cat\nblack dog\ncow\n")
        assert "3 classes" in prepare(tmp_path / "own", tmp_path / "data")
        assert set(read_mask(tmp_path / "data/SegmentationClass/black_dog/0.png").flat) == {0, 2}

    def test_one_among_masks_of_ids_is_refused(self, tmp_path):
        source = draw(tmp_path / "own", "index")
        self.soft(source, 1)
        with pytest.raises(DataError, match=r"1 pictures cannot be used: .*0\.png: a black and white mask"):
            prepare(source, tmp_path / "data")


class TestClassList:
    def prepared(self, tmp_path, names=NAMES):
        source = draw(tmp_path / "own", "index")
        (source / "classes.txt").write_text("\n".join(names))
        prepare(source, tmp_path / "data")
        return tmp_path / "data"

    def findings(self, root):
        return {finding.problem: finding for finding in verify("folder", root, workers=1)}

    def test_a_class_without_pixels_is_a_note_that_keeps_its_line(self, tmp_path):
        found = self.findings(self.prepared(tmp_path, (*NAMES, "cape")))
        assert list(found) == ["class without a pixel in any list"]
        (finding,) = found.values()
        assert finding.where == ("cape (4)",) and not finding.serious
        assert "keep its line" in finding.remedy and "take" not in finding.remedy

    def test_a_name_taken_off_is_noticed_and_shifts_no_other(self, tmp_path):
        root = self.prepared(tmp_path)
        path = root / "classes.txt"
        assert path.read_text() == "0 background\n1 hat\n2 shoe\n3 bag\n"
        path.write_text("0 background\n1 hat\n3 bag\n")
        found = self.findings(root)
        assert list(found) == ["class names"]
        assert "id 2 has no name" in found["class names"].where[0]
        with pytest.raises(DataError, match=r"id 2 has no name.*put '2 NAME' back"):
            open_fold("folder", root, 0, load_protocol("bam", min_area=1))
        path.write_text("0 background\n1 hat\n2 shoe\n")
        assert "label outside the classes 0..2 and 255" in self.findings(root)

    def test_names_that_moved_since_an_earlier_preparation_are_told(self, tmp_path, caplog):
        root, source = self.prepared(tmp_path), tmp_path / "own"
        (source / "classes.txt").write_text("hat\nbag\ncape\n")
        prepare(source, root)
        assert "classes.txt: bag was class 3 and is now class 2; masks hold ids" in caplog.text
        caplog.clear()
        (source / "classes.txt").write_text("0 background\n3 cape\n1 hat\n2 bag\n")
        prepare(source, root)
        assert "masks hold ids" not in caplog.text

    def test_a_list_of_an_earlier_version_is_read_by_its_lines(self, tmp_path):
        root = self.prepared(tmp_path)
        (root / "classes.txt").write_text("\n".join(("background", *NAMES)))
        assert self.findings(root) == {}
