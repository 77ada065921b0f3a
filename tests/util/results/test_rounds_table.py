"""The rounds of an adaptation in a result, and in a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewseg.engine.reports.report import Section, write_report, write_tables
from fewseg.util.errors import ResultError
from fewseg.util.results.formats import to_terminal
from fewseg.util.results.result import Result, RoundResult, read_result, write_result
from fewseg.util.results.rounds_table import build_rounds_table
from tests.util.results.test_result import make


def adapted(fold: int = 0, gain: float = 0.1, rounds: int = 2, **changes: object) -> Result:
    """Return a result in which every round gains as much; the last was chosen in 600 of 1000 episodes."""
    plain = make(fold=fold, method="bam + eftnet", **changes)
    seeds = tuple(
        seed.model_copy(
            update={
                "rounds": tuple(
                    RoundResult(
                        metrics={"mIoU": seed.metrics["mIoU"] + gain * number, "FB-IoU": 0.5},
                        chosen={0: 0, rounds: 600}.get(number, 400 // (rounds - 1)),
                    )
                    for number in range(rounds + 1)
                )
            }
        )
        for seed in plain.seeds
    )
    return plain.model_copy(update={"seeds": seeds})


def test_rounds_are_means_over_the_seeds_and_sums_of_choices() -> None:
    rounds = adapted().rounds
    assert [of_round.metrics["mIoU"] for of_round in rounds] == pytest.approx([0.65, 0.75, 0.85])
    assert [of_round.chosen for of_round in rounds] == [0, 800, 1200]
    assert make().rounds == ()


def test_result_files_with_and_without_rounds_are_read(tmp_path: Path) -> None:
    path = write_result(tmp_path / "adapted.json", adapted())
    assert read_result(path) == adapted()
    stored = json.loads(write_result(tmp_path / "plain.json", make()).read_text())
    for seed in stored["seeds"]:
        del seed["rounds"]  # as earlier versions wrote it
    (tmp_path / "plain.json").write_text(json.dumps(stored))
    assert read_result(tmp_path / "plain.json") == make()
    stored = json.loads(path.read_text())
    stored["seeds"][1]["rounds"].pop()
    path.write_text(json.dumps(stored))
    with pytest.raises(ResultError, match="another number of rounds"):
        read_result(path)


def test_table_has_a_column_for_every_round() -> None:
    results = [adapted(0), adapted(1, gain=0.0), adapted(0, rounds=3, variant="rounds3")]
    lines = to_terminal(build_rounds_table(results)).splitlines()
    assert [line.split()[-6:] for line in lines[3:9]] == [
        ["mIoU", "65.00", "70.00", "75.00", "-", "65.00"],
        ["FB-IoU", "50.00", "50.00", "50.00", "-", "75.00"],
        ["episodes", "0.00", "40.00", "60.00", "-", "-"],
        ["mIoU", "65.00", "75.00", "85.00", "95.00", "65.00"],
        ["FB-IoU", "50.00", "50.00", "50.00", "50.00", "75.00"],
        ["episodes", "0.00", "20.00", "20.00", "60.00", "-"],
    ]
    assert [name.strip() for name in lines[1].split("  ")[-5:]] == [
        "unadapted",
        "round 1",
        "round 2",
        "round 3",
        "returned",
    ]
    assert lines[9] == "Every round is scored as if its prediction had been returned in all episodes."


def test_report_and_tables_show_the_rounds_and_forget_those_of_results_that_are_gone(tmp_path: Path) -> None:
    def sections(*results: Result) -> dict[str, Section]:
        return {"all": Section({Path(str(i)): result for i, result in enumerate(results)}, [], {})}

    write_tables(tmp_path / "tables", sections(adapted(), make()))
    write_report(tmp_path / "report.html", sections(adapted(), make()))
    assert "round 2" in (tmp_path / "report.html").read_text()
    assert "60.0000" in (tmp_path / "tables/all/rounds.csv").read_text()
    assert sections(make())["all"].tables.keys() == {"mIoU"}
    write_tables(tmp_path / "tables", {"other": sections(make())["all"]})
    assert not (tmp_path / "tables/all").exists()
