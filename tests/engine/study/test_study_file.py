"""Study files: what they mean, and one line for every mistake in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewseg.engine.study.description.grid import cells_of
from fewseg.engine.study.description.study_file import read_study
from fewseg.util.errors import ConfigError, UserError

from .conftest import PLAIN, ROOT


def cells(study, text: str) -> list:
    return [*cells_of(read_study(study(text)))]


def test_grid_is_the_product_of_its_axes(study) -> None:
    found = cells(study, PLAIN)
    assert len(found) == 8
    assert found[1].labels == {
        "data": "pascal",
        "method": "bam",
        "backbone": "resnet50",
        "fold": "0",
        "shot": "5",
    }
    assert found[1].config == f"{ROOT}/config/pascal/bam_resnet50.yaml"
    assert found[1].changes == {"Data.split": 0, "Data.shot": 5}  # the rest is said by the name of the file
    assert found[1].name == "pascal bam resnet50 fold 0 shot 5"


def test_any_key_and_named_changes_are_axes(study) -> None:
    grid = "grid: {base_lr: [0.1, 0.2], loss: {full: {}, plain: {Method.ensemble: none, epochs: 3}}}"
    found = cells(study, f"config: {ROOT}/config/pascal/bam_resnet50.yaml\n{grid}\nopts: {{epochs: 5}}")
    assert [cell.labels for cell in found][1] == {"base_lr": "0.1", "loss": "plain"}
    assert found[0].changes == {"epochs": 5, "base_lr": 0.1}
    assert found[1].changes == {"epochs": 3, "base_lr": 0.1, "Method.ensemble": "none"}


def test_axes_that_only_change_the_test_are_no_part_of_a_trainings_name(study) -> None:
    grid = "grid: {fold: [0], adapt: [none, eftnet], how: {fast: {precision: bfloat16}}, test_shot: [1, 5]}"
    first = cells(study, f"config: {ROOT}/config/pascal/bam_resnet50.yaml\n{grid}")[0]
    assert first.training == "fold 0"
    assert first.tested == "fold 0 adapt none how fast"
    assert first.test_shot == 1


def test_first_config_that_exists_is_taken_and_the_axis_set_where_its_name_does_not_say_it(study) -> None:
    patterns = [
        f"{ROOT}/config/pascal/{{method}}_{{backbone}}.yaml",
        f"{ROOT}/config/pascal/{{method}}_vgg16.yaml",
    ]
    grid = "grid: {method: [sgone], backbone: [vgg16, resnet50]}"
    vgg, resnet = cells(study, f"config: {patterns}\n{grid}")
    assert vgg.config == resnet.config == f"{ROOT}/config/pascal/sgone_vgg16.yaml"
    assert vgg.changes == {}
    assert resnet.changes == {"Method.backbone": "resnet50"}


def test_cells_can_be_left_out(study) -> None:
    found = cells(study, f"{PLAIN}leave_out: [{{method: bam, fold: 1}}, {{shot: [5], method: pfenet}}]")
    kept = [(cell.labels["method"], cell.labels["fold"], cell.labels["shot"]) for cell in found]
    assert kept == [("bam", "0", "1"), ("bam", "0", "5"), ("pfenet", "0", "1"), ("pfenet", "1", "1")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1", ":1: must be a mapping with config and grid"),
        ("config: a\ngird: {}", ":2: gird: unknown key; did you mean grid?"),
        ("config: [a\n", "no valid YAML"),
        ("config: a", "grid: field required"),
        ("config: a\ngrid: {}", ":2: grid: has no axis"),
        ("config: a\ngrid: {fold: []}", "grid.fold: has no value"),
        ("config: a\ngrid: {loss: {full: 1}}", "grid.loss.full: must be a mapping of keys and values"),
        ("config: a\ngrid: {fold: [0]}", "config: no such file: a"),
        ("config: a\ngrid: {test_shot: [0]}", "grid.test_shot: must be numbers of supports"),
        (f"{PLAIN}tables: [{{rows: methods}}]", "tables: methods is no axis; grid has data, method"),
        (f"{PLAIN}tables: [{{row: method}}]", "tables.0.rows: field required"),
        (f"{PLAIN}leave_out: [{{}}]", "an empty rule would leave out every cell"),
        (f"{PLAIN}leave_out: [{{fold: [0, 1]}}]", "leave_out leaves no cell"),
        (f"{PLAIN}processes: 0", "processes: input should be greater than or equal to 1, got 0"),
        (f"{PLAIN}processes: !!python/object:os.system 1", "are not understood"),
    ],
)
def test_mistakes_are_one_line(study, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as failure:
        cells(study, text)
    assert said in str(failure.value)
    assert "table.yaml" in str(failure.value)
    assert "\n" not in str(failure.value)


def test_missing_file_is_one_line(tmp_path) -> None:
    with pytest.raises(UserError, match="the study file cannot be read"):
        read_study(tmp_path / "nothing.yaml")


def test_studies_of_two_papers_have_two_names(tmp_path: Path) -> None:
    names = []
    for place in ("studies/bam/main.yaml", "studies/panet/main.yaml", "studies/main.yaml", "main.yaml"):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("config: a.yaml\ngrid: {fold: [0]}\n")
        names.append(read_study(path).name)
    assert names == ["bam_main", "panet_main", "main", "main"]
