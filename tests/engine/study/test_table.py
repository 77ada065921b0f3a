"""Tables of a study: which figures they show, what is averaged, and what never shares a table."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

import pytest

from fewseg.engine.study.tables.files import write_study_tables
from fewseg.engine.study.tables.table import tables_of
from fewseg.util.config.plain_yaml import as_text
from fewseg.util.errors import ConfigError, ResultError
from fewseg.util.results.tables import Table, Value, build_table
from study import main

from .conftest import ROOT
from .made_up import fill, finish

PLAIN = {"rows": ["method"], "columns": ["fold"]}
OTHER = ("folder", "pascal")


@pytest.fixture
def shapes(expand, tmp_path: Path):
    """Return what expands a study over the Shapes configs whose files are below ``tmp_path``."""

    def make(*tables: dict, **grid: object):
        path = f"{ROOT}/config/{{data}}/{{method}}_{{backbone}}.yaml"
        axes = {"data": ["shapes"], "backbone": ["resnet18"], "method": ["bam"], "fold": [0, 1], **grid}
        shown = f"\ntables: {as_text([*tables])}" if tables else ""
        return expand(f"config: '{path}'\ngrid: {as_text(axes)}\nfolder: {tmp_path / 'runs'}{shown}\n")

    return make


def only(tables: dict[str, Table]) -> Table:
    assert [*tables] == ["table1"]
    return tables["table1"]


def by_row(table: Table) -> dict[tuple[str, ...], dict[str, Value | None]]:
    return {row.labels: dict(zip(table.headings, row.values, strict=True)) for row in table.rows}


def test_plain_table_is_that_of_a_test(shapes) -> None:
    jobs = shapes(PLAIN, method=["bam", "msanet"])
    results = fill(jobs)
    expected = build_table([*results.values()], last=None)
    table = only(tables_of(jobs))
    assert table.rows == expected.rows
    assert (table.label_columns, table.value_columns) == (("method",), ("fold0", "fold1", "mean"))
    assert table.title == "mIoU, data set shapes, " + expected.title.partition("data set shapes, ")[
        2
    ].replace("backbone resnet18, ", "")
    assert table.notes == ("± is the standard deviation (of the population) over the seeds of the test.",)


def test_folds_are_followed_by_their_mean_for_every_number_of_shots(shapes) -> None:
    jobs = shapes({"rows": ["method"], "columns": ["shot", "fold"]}, shot=[1, 5])
    results = fill(jobs)
    table = only(tables_of(jobs))
    assert table.value_columns == ("fold0", "fold1", "mean") * 2
    assert table.groups == ("1-shot",) * 3 + ("5-shot",) * 3
    five = [result for labels, result in results.items() if labels[-1] == "5"]
    assert table.rows[0].values[3:] == build_table(five, last=None).rows[0].values


def test_means_of_the_folds_before_another_axis(shapes) -> None:
    jobs = shapes({"rows": ["method"], "columns": ["fold", "shot"]}, shot=[1, 5])
    fill(jobs)
    table = only(tables_of(jobs))
    assert table.headings[::2] == ("fold0 1-shot", "fold1 1-shot", "mean 1-shot")


def test_rows_and_columns_of_several_axes(shapes) -> None:
    layout = {"rows": ["method", "fold"], "columns": ["shot", "seed", "Train.base_lr"]}
    axes = {"shot": [1, 5], "seed": [1, 2], "Train.base_lr": [0.1, 0.2]}
    jobs = shapes(layout, PLAIN, **axes)
    fill(jobs)
    table, averaged = tables_of(jobs).values()
    assert [row.labels for row in table.rows] == [("bam", "0"), ("bam", "1")]
    assert table.groups[:5] == (
        "1-shot seed 1",
        "1-shot seed 1",
        "1-shot seed 2",
        "1-shot seed 2",
        "5-shot seed 1",
    )
    assert table.value_columns[:2] == ("base_lr 0.1", "base_lr 0.2")
    assert averaged.notes[0] == "Figures are means over shot 1, 5; seed 1, 2; base_lr 0.1, 0.2."


def test_shots_of_training_and_of_testing(shapes) -> None:
    jobs = shapes(
        {"rows": ["method"], "columns": ["shot", "test_shot"]}, fold=[0], shot=[1, 5], test_shot=[1, 5]
    )
    fill(jobs, lambda cell: cell.labels["test_shot"] == "1")
    table = only(tables_of(jobs))
    assert table.headings[:2] == ("1-shot training 1-shot", "1-shot training 5-shot")
    assert "shot 1" not in table.title  # what is there so far does not tell it


def test_methods_and_backbones_in_columns(shapes) -> None:
    jobs = shapes(
        {"rows": ["fold"], "columns": ["backbone", "method"]}, method=["bam", "panet"], test_shot=[1, 5]
    )
    fill(jobs, lambda cell: cell.labels["test_shot"] == "1")
    table = only(tables_of(jobs))
    assert table.headings == ("resnet18 bam", "resnet18 panet")
    assert "shot 1" not in table.title


def test_one_fold_has_no_mean(shapes) -> None:
    jobs = shapes(PLAIN, fold=[2])
    fill(jobs)
    assert only(tables_of(jobs)).value_columns == ("fold2",)


def test_deviation_over_training_seeds(shapes) -> None:
    jobs = shapes(PLAIN, seed=[1, 2, 3])
    results = fill(jobs)
    table = only(tables_of(jobs))
    by_seed = {
        seed: [100 * result.mean["mIoU"] for labels, result in results.items() if labels[-1] == seed]
        for seed in ("1", "2", "3")
    }
    means = [statistics.fmean(own) for own in by_seed.values()]
    fold0, _, mean = table.rows[0].values
    assert (mean.mean, mean.std) == (
        pytest.approx(statistics.fmean(means)),
        pytest.approx(statistics.pstdev(means)),
    )
    assert fold0.std == pytest.approx(statistics.pstdev(own[0] for own in by_seed.values()))
    assert table.notes == (
        "Figures are means over seed 1, 2, 3.",
        "± is the standard deviation (of the population) over the training seeds.",
    )


def test_training_seeds_that_are_shown_are_not_averaged(shapes) -> None:
    jobs = shapes({"rows": ["method", "seed"], "columns": ["fold"]}, seed=[1, 2])
    results = fill(jobs)
    table = only(tables_of(jobs))
    assert [row.labels for row in table.rows] == [("bam", "1"), ("bam", "2")]
    first = [result for labels, result in results.items() if labels[-1] == "1"]
    assert table.rows[0].values == build_table(first, last=None).rows[0].values
    assert "seeds of the test" in table.notes[0]


def test_partial_table(shapes) -> None:
    jobs = shapes(PLAIN, method=["bam", "msanet"], seed=[1, 2])
    fill(jobs, lambda cell: (cell.labels["fold"], cell.labels["seed"]) != ("1", "2"))
    table = only(tables_of(jobs))
    for row in table.rows:
        assert [value is None for value in row.values] == [False, True, True]
    assert table.notes[0] == "6 of 8 tests are there; - stands for what is missing."


def test_table_without_any_result(shapes) -> None:
    table = only(tables_of(shapes(PLAIN, method=["bam", "panet"])))
    assert table.title == "mIoU, data set shapes"
    assert [row.labels for row in table.rows] == [("bam",), ("panet",)]
    assert {value for row in table.rows for value in row.values} == {None}
    assert table.notes == ("0 of 4 tests are there; - stands for what is missing.",)


def test_costs_and_metrics_in_columns(shapes) -> None:
    figure = ["parameters", "seconds a step", "seconds an episode", "peak GiB", "mIoU", "FB-IoU"]
    jobs = shapes({"rows": ["method"], "figure": figure}, method=["bam", "msanet"], fold=[0])
    fill(jobs, lambda cell: cell.labels["method"] == "bam")
    finish(next(job for job in jobs.jobs.values() if job.name.startswith("shapes resnet18 msanet")))
    table = only(tables_of(jobs))
    assert table.headings[:5] == ("parameters, M", "s/step", "s/episode", "peak, GiB", "mIoU")
    shown = ["-" if value is None else value.text() for row in table.rows for value in row.values[:4]]
    assert shown == ["1.50", "0.250", "0.025", "1.2", "1.50", "0.250", "-", "1.2"]
    assert [value is None for value in table.rows[1].values[2:]] == [True, False, True, True]


def test_several_figures_make_several_tables_where_axes_are_the_columns(shapes) -> None:
    jobs = shapes({**PLAIN, "figure": ["mIoU", "FB-IoU"]})
    results = fill(jobs)
    tables = tables_of(jobs)
    assert [*tables] == ["table1_1", "table1_2"]
    assert tables["table1_2"].title.startswith("FB-IoU, data set shapes")
    assert tables["table1_2"].rows == build_table([*results.values()], "FB-IoU", None).rows


def test_unknown_figure(shapes) -> None:
    jobs = shapes({**PLAIN, "figure": "mIOU"})
    fill(jobs)
    with pytest.raises(
        ConfigError, match=r"table.yaml: tables: figure: mIOU is no metric .* mIoU, FB-IoU, sec"
    ):
        tables_of(jobs)


def test_data_sets_have_separate_tables(shapes) -> None:
    layout = {"rows": ["data", "method"], "columns": ["fold"]}
    jobs = shapes(layout, data=["pascal", "coco"], backbone=["resnet50"])
    fill(jobs)
    tables = tables_of(jobs)
    assert [table.title.split(", ")[1] for table in tables.values()] == ["data set pascal", "data set coco"]
    assert {table.label_columns for table in tables.values()} == {("method",)}


def test_methods_under_different_protocols_never_share_a_table(shapes) -> None:
    jobs = shapes(PLAIN, data=["pascal"], backbone=["resnet50"], method=["bam", "msanet", "hsnet"])
    complete = fill(jobs)
    tables = tables_of(jobs)
    assert [[row.labels[0] for row in table.rows] for table in tables.values()] == [
        ["bam", "msanet"],
        ["hsnet"],
    ]
    assert ["protocol bam" in table.title for table in tables.values()] == [True, False]
    assert len(complete) == 6


def test_missing_results_are_in_the_table_that_they_will_belong_to(shapes) -> None:
    jobs = shapes(PLAIN, data=["pascal"], backbone=["resnet50"], method=["hsnet", "bam", "msanet"])
    fill(jobs, lambda cell: cell.labels["method"] != "msanet")
    tables = tables_of(jobs)
    shown = [[row.labels[0] for row in table.rows] for table in tables.values()]
    assert shown == [["hsnet"], ["bam", "msanet"]]
    assert [table.notes[0].startswith("2 of 4 tests") for table in tables.values()] == [False, True]


def test_axis_that_is_shown_may_be_the_difference(shapes) -> None:
    layout = {"rows": ["method", "test_protocol"], "columns": ["fold"]}
    jobs = shapes(layout, method=["bam", "msanet"], test_protocol=["bam", "pfenet"])
    fill(jobs)
    table = only(tables_of(jobs))
    assert [row.labels[1] for row in table.rows] == ["bam", "pfenet"] * 2
    assert any(note.startswith("The table holds different protocols: bam") for note in table.notes)


def test_axis_that_is_not_shown_splits_the_table(shapes) -> None:
    jobs = shapes(PLAIN, test_protocol=["bam", "pfenet"])
    results = fill(jobs)
    tables = [*tables_of(jobs).values()]
    for table, name in zip(tables, ("bam", "pfenet"), strict=True):
        own = [result for labels, result in results.items() if labels[-1] == name]
        assert f"protocol {name}" in table.title
        assert table.rows[0].values == build_table(own, last=None).rows[0].values


def test_latest_of_repeated_tests_counts(shapes) -> None:
    jobs = shapes(PLAIN, fold=[0])
    (result,) = fill(jobs).values()
    _, test, _ = jobs.cells[0]
    first = next(jobs.jobs[test].folder.glob("*.json"))
    other = result.model_copy(update={"seeds": result.seeds[:1]})
    for name, time in (("a.json", -100), ("z.json", -200), ("m.json", 100)):
        path = first.with_name(name)
        path.write_text((other if time > 0 else result).model_dump_json())
        os.utime(path, (first.stat().st_mtime + time,) * 2)
    assert only(tables_of(jobs)).rows[0].values == build_table([other], last=None).rows[0].values[:1]


def test_other_episodes_are_refused(shapes) -> None:
    jobs = shapes(PLAIN, method=["bam", "msanet"])

    def change(cell) -> dict:
        return {} if cell.labels["method"] == "bam" else {"seeds": seeds}

    seeds = next(iter(fill(jobs).values())).seeds[:1]
    fill(jobs, change=change)
    with pytest.raises(
        ResultError,
        match=r"different episodes: .*\.json and .*\.json do not test fold 0 .* show the .*, or test again$",
    ):
        tables_of(jobs)


def test_results_of_an_oracle_have_their_own_table(shapes) -> None:
    jobs = shapes(PLAIN, method=["bam", "msanet"])
    fill(jobs, change=lambda cell: {"oracle": cell.labels["method"] == "bam"})
    assert ["(oracle)" in table.title for table in tables_of(jobs).values()] == [True, False]


def test_missing_results_make_no_table_of_their_own(shapes) -> None:
    jobs = shapes(PLAIN, method=["panet", "bam", "msanet"])
    wanted = {("bam", "0"), ("msanet", "0"), ("msanet", "1")}
    fill(
        jobs,
        lambda cell: (cell.labels["method"], cell.labels["fold"]) in wanted,
        lambda cell: {"oracle": cell.labels["method"] == "bam"},
    )
    assert ["(oracle)" in table.title for table in tables_of(jobs).values()] == [True, False]


def test_both_ways_to_merge_have_a_table(shapes) -> None:
    jobs = shapes(PLAIN)
    for setting in ("generalised-max", "generalised-threshold"):
        fill(jobs, change=lambda cell, setting=setting: {"setting": setting})
    titles = [table.title for table in tables_of(jobs).values()]
    assert ["generalised-max" in title for title in titles] == [True, False]
    assert ["generalised-threshold" in title for title in titles] == [False, True]


def test_unbalanced_grid(expand, tmp_path: Path) -> None:
    grid = "{method: [bam, msanet], fold: [0, 1], seed: [1, 2]}"
    rules = "[{method: bam, fold: 1, seed: 2}, {method: msanet, fold: 1}]"
    layout = "[{rows: method, columns: fold}]"
    config = f"config: {ROOT}/config/shapes/{{method}}_resnet18.yaml"
    jobs = expand(f"{config}\ngrid: {grid}\nleave_out: {rules}\nfolder: {tmp_path}/runs\ntables: {layout}\n")
    fill(jobs)
    rows = by_row(only(tables_of(jobs)))
    assert rows["bam",]["fold0"].std is not None
    assert rows["bam",]["fold1"].std is None and rows["bam",]["mean"].std is None
    assert rows["msanet",]["fold1"] is None
    assert rows["msanet",]["mean"] is None  # it would be compared with a mean over two folds


def test_study_without_tables_shows_all_cells(shapes) -> None:
    jobs = shapes(method=["bam", "msanet"], seed=[1, 2], shot=[1], base_lr=[0.1, 0.2])
    fill(jobs)
    table = only(tables_of(jobs))
    assert table.label_columns == ("backbone", "method", "base_lr")
    assert table.headings == ("1-shot fold0", "1-shot fold1", "1-shot mean")
    assert len(table.rows) == 4


def test_files_are_the_same_for_the_same_results_and_old_ones_go(shapes, tmp_path: Path) -> None:
    jobs = shapes({**PLAIN, "figure": ["mIoU", "FB-IoU"]})
    fill(jobs)
    folder = tmp_path / "tables"
    page = write_study_tables(folder, jobs.study, tables_of(jobs))
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert page.read_text().count("<table>") == 2
    assert len(first) == 9
    (folder / "own.md").write_text("the user's")
    write_study_tables(folder, jobs.study, {"table1": tables_of(jobs)["table1_1"]})
    assert {path.name for path in folder.iterdir()} == {
        *(f"table1.{suffix}" for suffix in ("txt", "md", "csv", "tex")),
        *("tables.html", "own.md"),
    }
    write_study_tables(folder, jobs.study, tables_of(jobs))
    assert {name: (folder / name).read_bytes() for name in first} == first


def test_script_prints_one_format_and_writes_all(shapes, tmp_path: Path, capsys) -> None:
    jobs = shapes(PLAIN)
    fill(jobs)
    main(["table", str(jobs.study.path), "--format", "markdown"])
    folder = tmp_path / "runs/studies/table"
    assert capsys.readouterr().out.strip() == (folder / "table1.md").read_text().strip()
    assert (folder / "tables.html").is_file()
    main(["table", str(jobs.study.path), "--out", str(tmp_path / "elsewhere")])
    assert capsys.readouterr().out.strip() == (tmp_path / "elsewhere/table1.txt").read_text().strip()


def test_tests_on_other_data_have_tables_of_their_own_that_name_the_training(shapes) -> None:
    others = {name: {"Test_Finetune.data": f"{ROOT}/config/_base_/dataset/{name}.yaml"} for name in OTHER}
    jobs = shapes({**PLAIN, "rows": ["tested"]}, tested={"own": {}, **others})
    results = fill(jobs)
    tables = {table.title: table for table in tables_of(jobs).values()}
    for data_set, title in zip(("shapes", *OTHER), tables, strict=True):
        assert title.startswith(f"mIoU, data set {data_set}, ")
        assert ("trained on shapes" in title) == (data_set in OTHER)
    (row,) = by_row(tables[title]).values()
    assert row["fold1"].mean == pytest.approx(
        100 * results["shapes", "resnet18", "bam", "1", OTHER[-1]].mean["mIoU"]
    )
