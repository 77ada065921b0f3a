"""Result files and the tables made of them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fewseg.engine.reports.report import Section, write_report, write_tables
from fewseg.util.errors import ResultError
from fewseg.util.results.formats import FORMATS, to_csv, to_latex, to_markdown, to_terminal
from fewseg.util.results.identity import file_name
from fewseg.util.results.result import Result, SeedResult, read_result, write_result
from fewseg.util.results.tables import build_class_table, build_table


def make(fold: int = 0, scores: tuple[float, ...] = (0.6, 0.7), **changes: Any) -> Result:
    seeds = tuple(
        SeedResult(
            seed=number,
            episode_hash=f"{fold}{number}",
            metrics={"mIoU": score, "FB-IoU": score + 0.1},
            class_iou={"cat": score, "dog": 0.5},
        )
        for number, score in enumerate(scores)
    )
    fields = {"method": "bam", "backbone": "resnet50", "data_set": "pascal", "shot": 1, "protocol": "bam"}
    return Result(**{**fields, "fold": fold, "episodes": 1000, "seconds": 1.5, "seeds": seeds, **changes})


class TestFiles:
    def test_round_trip(self, tmp_path: Path) -> None:
        result = make(config={"Data": {"split": 0}}, checkpoint_hash="ab")
        path = write_result(tmp_path / file_name(result), result)
        assert path.name == "bam_resnet50_pascal_bam_fold0_1shot_2x1000.json"
        assert read_result(path) == result
        written = json.loads(path.read_text())
        assert written["mean"]["mIoU"] == pytest.approx(0.65)
        assert written["std"]["mIoU"] == pytest.approx(0.05)  # of the population
        assert written["class_iou"] == pytest.approx({"cat": 0.65, "dog": 0.5})
        assert written["versions"].keys() == {"fewseg", "python", "torch"}

    def test_what_was_measured_stays_as_it_is(self, tmp_path: Path) -> None:
        result = make()
        for part, field in ((result, "method"), (result.seeds[0], "seed")):
            with pytest.raises(ValidationError, match="frozen"):
                setattr(part, field, 7)
        text = write_result(tmp_path / file_name(result), result).read_text()
        assert text == json.dumps(json.loads(text), indent=1, ensure_ascii=False) + "\n"

    def test_the_hash_of_all_episodes_never_changes(self) -> None:
        assert make(0).episode_hash == hashlib.sha256(b"00 01").hexdigest()[:16]

    def test_untested_classes_are_told(self) -> None:
        seeds = tuple(
            seed.model_copy(update={"class_iou": {"cat": 0.5, "dog": None}}) for seed in make().seeds
        )
        assert make().tested_in_words == ""
        assert make(seeds=seeds, absent_classes="zero").tested_in_words == (
            "1 of 2 classes tested; the rest counts as 0 in the mean"
        )
        assert make(seeds=seeds, absent_classes="left_out").tested_in_words == (
            "1 of 2 classes tested; the rest is left out of the mean"
        )

    def test_a_wrong_value_is_named_by_its_path(self, tmp_path: Path) -> None:
        path = write_result(tmp_path / "r.json", make())
        content = json.loads(path.read_text())
        content["seeds"][1]["seed"] = "first"
        path.write_text(json.dumps(content))
        with pytest.raises(ResultError, match=r"seeds\.1\.seed: "):
            read_result(path)

    def test_hash_tells_episodes_apart(self) -> None:
        assert make(0).episode_hash == make(0).episode_hash != make(1).episode_hash

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('{"fewseg', "no JSON or cut short"),
            ("[1]", "no result file of FewSeg"),
            ('{"mIoU": 1}', "no result file of FewSeg"),
            ('{"fewseg_result": 99}', "has schema 99"),
            ('{"fewseg_result": 1}', "method: field required"),
        ],
    )
    def test_foreign_files(self, tmp_path: Path, text: str, expected: str) -> None:
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(ResultError, match=expected) as caught:
            read_result(tmp_path / "r.json")
        assert "\n" not in str(caught.value)

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ResultError, match="cannot be read"):
            read_result(tmp_path / "gone.json")

    def test_seeds_must_agree(self) -> None:
        other = SeedResult(seed=9, episode_hash="x", metrics={"pIoU": 1.0})
        with pytest.raises(ValueError, match="seed 9 has other metrics"):
            make(seeds=(*make().seeds, other))

    def test_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ResultError, match="cannot be written"):
            write_result(tmp_path / "file/r.json", make())


class TestTables:
    def test_folds_mean_and_deviation(self) -> None:
        table = build_table([make(0, (0.6, 0.7)), make(1, (0.4, 0.3))])
        assert table.title.startswith("mIoU, data set pascal, backbone resnet50, shot 1")
        assert table.label_columns == ("method",)
        assert table.value_columns == ("fold0", "fold1", "mean", "FB-IoU")
        assert [value.text() for value in table.rows[0].values] == [
            "65.00 ± 5.00",
            "35.00 ± 5.00",
            "50.00 ± 0.00",  # the seeds' ups and downs cancel in the mean over the folds
            "60.00 ± 0.00",
        ]

    def test_what_differs_gets_a_column(self) -> None:
        table = build_table([make(), make(protocol="pfenet", backbone="vgg16"), make(method="copy mask")])
        assert table.label_columns == ("method", "backbone", "protocol")
        assert [row.labels for row in table.rows] == [
            ("bam", "resnet50", "bam"),
            ("bam", "vgg16", "pfenet"),
            ("copy mask", "resnet50", "bam"),
        ]

    def test_a_missing_fold_leaves_the_mean_open(self) -> None:
        table = build_table([make(0), make(1), make(0, method="panet")])
        assert [value is None for value in table.rows[1].values] == [False, True, True, True]

    def test_one_seed_has_no_deviation(self) -> None:
        assert build_table([make(scores=(0.5,))]).rows[0].values[0].text() == "50.00"

    def test_mistakes(self) -> None:
        with pytest.raises(ResultError, match="given twice"):
            build_table([make(), make()])
        with pytest.raises(ResultError, match="has no metric pIoU; it has mIoU, FB-IoU"):
            build_table([make()], "pIoU")
        with pytest.raises(ResultError, match="no results"):
            build_table([])

    def test_formats(self) -> None:
        table = build_table([make(), make(method="copy_mask", scores=(0.1,), episodes=5)])
        assert set(FORMATS) == {"terminal", "markdown", "csv", "latex"}
        lines = to_terminal(table).splitlines()
        assert len({len(line) for line in lines[1:]}) == 1  # aligned
        assert "| bam | 2 x 1000 | 65.00 ± 5.00 |" in to_markdown(table)
        rows = list(csv.DictReader(io.StringIO(to_csv(table))))
        assert (rows[0]["fold0"], rows[0]["fold0_std"], rows[1]["fold0_std"]) == ("65.0000", "5.0000", "")
        latex = to_latex(table)
        assert r"bam & 2 x 1000 & 65.00 $\pm$ 5.00" in latex
        assert r"copy\_mask" in latex
        assert r"\begin{tabular}{llrrr}" in latex


class TestClassesThatWereNotTested:
    """Of four classes one is tested by one of two seeds, one by none."""

    def result(self, **changes: Any) -> Result:
        found = ({"cat": 0.5, "dog": 0.2, "<ox>": None, "cow": None}, {"cat": 0.7, "dog": None})
        seeds = tuple(
            SeedResult(
                seed=number,
                episode_hash=str(number),
                metrics={"mIoU": 0.5, "mIoU_base": 0.1},
                class_iou=dict.fromkeys(found[0]) | ious,
            )
            for number, ious in enumerate(found)
        )
        return make(seeds=seeds, **{"absent_classes": "left_out", **changes})

    def test_their_mean_is_over_the_seeds_that_test_them(self, tmp_path: Path) -> None:
        result = self.result()
        assert result.class_iou == {"cat": pytest.approx(0.6), "dog": 0.2, "<ox>": None, "cow": None}
        path = write_result(tmp_path / file_name(result), result)
        assert json.loads(path.read_text())["classes_tested"] == "2 of 4"
        assert read_result(path) == result

    @pytest.mark.parametrize(
        ("rule", "end"), [("zero", "counts as 0 in the mean"), ("left_out", "is left out of the mean")]
    )
    def test_tables_say_what_became_of_them(self, rule: str, end: str) -> None:
        result = self.result(absent_classes=rule)
        for name, (_, write) in FORMATS.items():
            line = "fold 0, 1-shot: 2 of 4 classes tested; the rest"
            assert (line in write(build_table([result]))) == (name != "csv")
        assert end in result.tested_in_words
        assert build_table([result], "mIoU_base").notes == ()
        assert build_table([make()]).notes == ()

    def test_they_have_no_figure_in_the_table_of_classes(self) -> None:
        table = build_class_table([self.result(), make(method="copy", shot=5)])
        assert table.value_columns == ("bam, shot 1", "copy, shot 5")
        wanted = {
            "cat": ("60.00 ± 10.00", "65.00 ± 5.00"),
            "dog": ("20.00", "50.00 ± 0.00"),
            "cow": ("-", "-"),
        }
        shown = {row.labels: tuple(v.text() if v else "-" for v in row.values) for row in table.rows}
        assert shown == {("0", name): cells for name, cells in {**wanted, "<ox>": ("-", "-")}.items()}
        rows = list(csv.DictReader(io.StringIO(to_csv(table))))
        assert next(row for row in rows if row["class"] == "cow")["bam, shot 1"] == "-"
        assert "| 0 | cow | - | - |" in to_markdown(table)
        assert r"0 & cow & - & - \\" in to_latex(table)
        assert re.search(r"0 +cow +- +-", to_terminal(table))

    def test_they_have_no_figure_on_the_page(self, tmp_path: Path) -> None:
        sections = {"all": Section({tmp_path / "one.json": self.result()}, [], {})}
        page = write_report(tmp_path / "report.html", sections).read_text()
        assert "<td>60.00</td><td>20.00</td><td>-</td><td>-</td>" in page
        assert "2 of 4 classes tested" in page
        write_tables(tmp_path, sections)
        assert {path.name for path in (tmp_path / "all").glob("classes.*")} == {
            f"classes.{s}" for s, _ in FORMATS.values()
        }
