"""Tables to the last character, in every format, and what their figures are."""

from __future__ import annotations

from typing import Any

import pytest

from fewseg.util.results.formats import to_csv, to_html, to_latex, to_markdown, to_terminal
from fewseg.util.results.result import Result, SeedResult
from fewseg.util.results.tables import Row, Table, Value, build_table

TABLE = Table(
    "mIoU, shot 1",
    ("method", "protocol"),
    ("fold0", "mean"),
    (
        Row(("bam", "bam"), (Value(50, 1.5), Value(40.123456, 0.5, (39.25, 41)))),
        Row(("copy_mask", "50 % & #1"), (None, Value(7.5))),
    ),
    ("7 of 13 classes tested",),
)


def test_terminal() -> None:
    assert to_terminal(TABLE).splitlines() == [
        "mIoU, shot 1",
        "method     protocol          fold0                         mean",
        "-" * 63,
        "bam        bam        50.00 ± 1.50  40.12 ± 0.50 [39.25, 41.00]",
        "copy_mask  50 % & #1             -                         7.50",
        "7 of 13 classes tested",
    ]


def test_markdown() -> None:
    assert to_markdown(TABLE).splitlines() == [
        "mIoU, shot 1",
        "",
        "| method | protocol | fold0 | mean |",
        "|---|---|---:|---:|",
        "| bam | bam | 50.00 ± 1.50 | 40.12 ± 0.50 [39.25, 41.00] |",
        "| copy_mask | 50 % & #1 | - | 7.50 |",
        "",
        "7 of 13 classes tested",
    ]


def test_csv() -> None:
    assert to_csv(TABLE).splitlines() == [
        "method,protocol,fold0,fold0_std,mean,mean_std,mean_low,mean_high",
        "bam,bam,50.0000,1.5000,40.1235,0.5000,39.2500,41.0000",
        "copy_mask,50 % & #1,-,,7.5000,,,",
    ]


def test_latex() -> None:
    assert to_latex(TABLE).splitlines() == [
        "% mIoU, shot 1",
        "% 7 of 13 classes tested",
        r"\begin{tabular}{llrr}",
        r"\toprule",
        r"method & protocol & fold0 & mean \\",
        r"\midrule",
        r"bam & bam & 50.00 $\pm$ 1.50 & 40.12 $\pm$ 0.50 [39.25, 41.00] \\",
        r"copy\_mask & 50 \% \& \#1 & - & 7.50 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


GROUPED = Table(
    "mIoU",
    ("method",),
    ("fold0", "mean", "fold0"),
    (Row(("bam",), (Value(50), Value(0.125, decimals=3), None)),),
    groups=("1-shot", "1-shot", "5-shot <all>"),
)


def test_groups_of_columns() -> None:
    assert to_markdown(GROUPED).splitlines()[2] == (
        "| method | 1-shot fold0 | 1-shot mean | 5-shot <all> fold0 |"
    )
    assert to_csv(GROUPED).startswith("method,1-shot fold0,1-shot fold0_std,1-shot mean,")
    assert to_latex(GROUPED).splitlines()[2:7] == [
        r"\toprule",
        r" & \multicolumn{2}{c}{1-shot} & \multicolumn{1}{c}{5-shot <all>} \\",
        r"\cmidrule(lr){2-3} \cmidrule(lr){4-4}",
        r"method & fold0 & mean & fold0 \\",
        r"\midrule",
    ]
    assert to_html(GROUPED) == (
        '<h2>mIoU</h2><div class="wide"><table>'
        '<tr><th colspan="1"></th><th class="group" colspan="2">1-shot</th>'
        '<th class="group" colspan="1">5-shot &lt;all&gt;</th></tr>'
        "<tr><th class=label>method</th><th>fold0</th><th>mean</th><th>fold0</th></tr>"
        "<tr><td class=label>bam</td><td>50.00</td><td>0.125</td><td>-</td></tr></table></div>"
    )


def result(fold: int = 0, scores: tuple[float, ...] = (0.6, 0.7), **changes: Any) -> Result:
    """Return a result with one score per seed."""
    seeds = tuple(
        SeedResult(seed=number, episode_hash=f"{fold}{number}", metrics={"mIoU": score, "FB-IoU": score / 2})
        for number, score in enumerate(scores)
    )
    fields = {"method": "bam", "backbone": "resnet50", "data_set": "pascal", "shot": 1, "protocol": "bam"}
    return Result(**{**fields, "fold": fold, "episodes": 1000, "seconds": 1.5, "seeds": seeds, **changes})


def test_figures_and_intervals() -> None:
    table = build_table(
        [result(0, (0.6, 0.7)), result(1, (0.4, 0.1))],
        interval=lambda results, metric: (0.01 * len(results), 0.5 if metric == "mIoU" else 0.25),
    )
    assert table.rows[0].values == (
        Value(pytest.approx(65.0), pytest.approx(5.0)),
        Value(pytest.approx(25.0), pytest.approx(15.0)),
        Value(pytest.approx(45.0), pytest.approx(5.0), (2.0, 50.0)),
        Value(pytest.approx(22.5), pytest.approx(2.5), (2.0, 25.0)),
    )


def test_deviations_need_several_seeds_that_the_folds_share() -> None:
    one = build_table([result(0, (0.6,)), result(1, (0.4,))], last=None)
    assert [value.std for value in one.rows[0].values] == [None, None, None]
    other_seed = result(1, (0.4, 0.3)).seeds[1].model_copy(update={"seed": 9})
    other = result(1, (0.4, 0.3)).model_copy(update={"seeds": (result(1).seeds[0], other_seed)})
    mixed = build_table([result(0), other], last=None)
    assert [value.std is None for value in mixed.rows[0].values] == [False, False, True]


@pytest.mark.parametrize(
    ("changes", "column", "cells"),
    [
        ({"data_set": "coco"}, "data set", ("pascal", "coco")),
        ({"backbone": "vgg16"}, "backbone", ("resnet50", "vgg16")),
        ({"shot": 5}, "shot", ("1", "5")),
        ({"ways": 2}, "way", ("1", "2")),
        ({"protocol": "hsnet", "trained_under": "hsnet"}, "protocol", ("bam", "hsnet")),
        ({"protocol_difference": {"min_area": (2048, 0), "episodes": (1000, 5)}}, "protocol", None),
        ({"trained_under": "pfenet"}, "trained under", ("-", "pfenet")),
        ({"novel_in_train": "remove"}, "novel in train", ("-", "remove")),
        ({"setting": "adapted", "oracle": True}, "setting", ("few-shot", "adapted (oracle)")),
        ({"annotation": "bbox"}, "supports", ("-", "bbox")),
        ({"config": {"Data": {"auxiliary": "lists"}}}, "auxiliary images", ("-", "lists")),
        ({"episodes": 10}, "episodes", ("2 x 1000", "2 x 10")),
    ],
)
def test_what_differs_has_a_column(changes: dict, column: str, cells: tuple[str, str] | None) -> None:
    table = build_table([result(), result(**changes)])
    assert table.label_columns[:2] == ("method", column)
    shown = cells or ("bam", "bam with min_area 0")
    assert tuple(row.labels[1] for row in table.rows) == shown
    assert all(f"{column} {cell}" not in table.title for cell in shown)


def test_what_is_shared_is_in_the_title() -> None:
    assert build_table([result()]).title == (
        "mIoU, data set pascal, backbone resnet50, shot 1, way 1, protocol bam, setting few-shot, "
        "episodes 2 x 1000"
    )
