"""The records that the repository carries: complete, small, made of the full set, and compared in earnest."""

from __future__ import annotations

import importlib.util
import json
import re
from collections import defaultdict
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.parity import inputs, summary
from tests.parity.cases import RECORDED, TABLES, WHOLE, Figures, case_names, cases_read, load_case
from tests.parity.comparison import agreement, assert_close
from tests.parity.pictures import LIST, draw_pictures
from tests.parity.storage import KEPT, kept, pack, unpack
from tests.parity.thin import main, recorded_variants, tables_of, thinned_files

LARGEST = 5 * 2**20
ROOT = Path(__file__).resolve().parents[2]

needs_full_set = pytest.mark.skipif(not WHOLE.is_dir(), reason="../shared/parity is not beside this checkout")


@needs_full_set
def test_the_committed_files_are_made_of_the_full_set() -> None:
    for variant in recorded_variants():
        committed = {path.name: path.read_bytes() for path in (RECORDED / variant).glob("*.*")}
        made = thinned_files(variant)
        assert set(committed) == set(made), variant
        assert [name for name in made if committed[name] != made[name]] == [], variant
        for name, contents in tables_of(variant).items():
            assert (RECORDED / TABLES / name).read_bytes() == contents, name


def test_they_are_small_and_hold_no_code() -> None:
    files = [path for path in RECORDED.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in files) <= LARGEST


def test_every_method_has_evaluations_and_training_with_every_family() -> None:
    cases = defaultdict(list)
    for name in case_names():
        method, variant, *_ = name.split("/")
        if (RECORDED / method / variant / "manifest.json").exists():
            cases[method, "vgg" if "vgg" in variant else "resnet"].append(name)
    assert len(cases) >= 25
    for family, names in cases.items():
        contents = [json.loads((RECORDED / f"{name}.json").read_text()) for name in names]
        trained = [case for case in contents if {"train", "finetune", "train_steps"} & set(case)]
        assert trained and (len(trained) < len(names) or family[0] == "eftnet"), family
        assert any((RECORDED / f"{name}.safetensors").exists() for name in names), family


def test_the_readme_tells_how_many_there_are() -> None:
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"compares this code with {summary.tally(case_names())} handling" in text
    methods = {name.partition("/")[0] for name in case_names()} - {"data"}
    listed = set(re.findall(r"^\| `?(\w+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert methods - {"pspnet"} <= listed


def test_small_arrays_and_labels_come_back_whole_and_others_in_part(tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    arrays = {
        "small": rng.standard_normal((2, 7)).astype(np.float32),
        "large": rng.standard_normal((2, 3, 41, 43)).astype(np.float32),
        "logits": rng.standard_normal((3, 2, 19, 23)).astype(np.float32),
        **{f"of {n}": rng.permutation(256)[:n][rng.randint(0, n, (3, 101))] for n in (1, 2, 3, 8, 9, 32)},
    }
    (tmp_path / "case.safetensors").write_bytes(pack(arrays))
    found = unpack(tmp_path / "case.safetensors")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        there = ~np.isnan(found[name])
        np.testing.assert_array_equal(found[name][there], array[there])
        assert there.sum() == {"large": KEPT, "logits": 2 * KEPT}.get(name, array.size)
    assert (np.isnan(found["logits"][:, 0]) == np.isnan(found["logits"][:, 1])).all()


@pytest.mark.parametrize("shape", [(2, 256, 13, 13), (1, 2, 97, 97), (4, 64, 60, 60), (1, 512, 512), (300,)])
def test_what_is_kept_is_spread_over_every_axis(shape: tuple[int, ...]) -> None:
    there = kept(shape)
    for axis, length in enumerate(shape):
        counts = there.sum(tuple(other for other in range(len(shape)) if other != axis))
        halves = counts[: length // 2].sum(), counts[(length + 1) // 2 :].sum()
        assert min(halves, default=0) >= 0.8 * max(halves) or length == 1
        assert (counts > 0).mean() > 0.35


def test_an_entry_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="figures holds entries that are not finite"):
        pack({"figures": np.array([1.0, np.nan])})


def test_a_comparison_covers_every_form_and_every_kept_entry() -> None:
    whole = np.arange(6.0).reshape(2, 3)
    thinned = np.where(whole % 2 == 0, whole, np.nan)
    ours = torch.from_numpy(whole.copy())
    assert_close(ours, Figures((thinned, whole)), 0, 0)
    ours[0, 1] += 1  # kept in no thinned form
    assert_close(ours, Figures((thinned,)), 0, 0)
    with pytest.raises(AssertionError):
        assert_close(ours, Figures((thinned, whole)), 0, 0)
    ours[0, 2] += 1
    with pytest.raises(AssertionError):
        assert_close(ours, Figures((thinned,)), 0, 0)
    with pytest.raises(AssertionError, match="holds nothing of these figures"):
        assert_close(ours[0, 1], Figures((thinned,))[0, 1])
    assert agreement(ours, Figures((whole, whole + 1))) == pytest.approx(2 / 6)
    with pytest.raises(ValueError, match="needs as a whole"):
        Figures((thinned,)).whole()


def test_an_unknown_variant_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["thin.py", "bam/resnet34"])
    with pytest.raises(SystemExit):
        main()
    assert "bam/resnet34 holds no recorded case" in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_record_tells_how_to_make_it() -> None:
    with pytest.raises(FileNotFoundError, match=re.escape("python tests/parity/thin.py bam/resnet34")):
        load_case("bam/resnet34", "eval_1shot")


def test_the_line_at_the_end_counts_a_case_only_where_all_its_tests_pass() -> None:
    def report(when: str, *cases: str) -> SimpleNamespace:
        return SimpleNamespace(when=when, user_properties=[(summary.NOTE, [(case, True) for case in cases])])

    lines: list[str] = []
    stats = {
        "passed": [report("call", "bam/resnet50/a", "data/lists"), report("call", "bam/vgg16/b")],
        "failed": [report("call", "bam/vgg16/b", "rare/vgg16/c")],
        "": [report("teardown", "mlc/resnet50/d")],
    }
    summary.pytest_terminal_summary(SimpleNamespace(stats=stats, write_line=lines.append))
    counted = "1 case of 1 method and 1 of the data"
    assert lines == [
        f"parity: {counted} hold (thinned records), {counted} (full set); "
        "these do not: bam/vgg16/b, rare/vgg16/c"
    ]


def test_reading_figures_is_noted_until_the_next_test() -> None:
    for figures in ("meta", "arrays"):
        _, case = load_case("data", "val_transform")
        assert not cases_read
        getattr(case, figures)
        assert cases_read == {("data/val_transform", WHOLE.is_dir())}
        summary.pytest_runtest_setup()


@pytest.fixture
def reference() -> ModuleType:
    """The generators that lie beside the full set."""
    found = importlib.util.spec_from_file_location("reference_inputs", WHOLE / "reference_inputs.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@needs_full_set
def test_inputs_and_weights_are_those_of_the_full_set(reference: ModuleType, tmp_path: Path) -> None:
    for name, arguments in (
        ("image", (7, 2, 33, 41, 5)),
        ("mask", (8, 2, 33, 41)),
        ("mask", (8, 2, 33, 41, None)),
        ("labels", (9, 2, 33, 41, 6)),
        ("labels", (9, 2, 33, 41, 6, None)),
    ):
        np.testing.assert_array_equal(inputs.make([name, *arguments]), getattr(reference, name)(*arguments))
    layout = {"linear.weight": [5, 7], "conv.weight": [5, 7, 3, 3], "conv.bias": [5]}
    layout |= {"bn.weight": [9], "bn.running_mean": [9], "bn.running_var": [9], "bn.num_batches_tracked": []}
    for key, shape in layout.items():
        ours, theirs = (made.fill_parameter(key, tuple(shape)) for made in (inputs, reference))
        np.testing.assert_array_equal(ours, theirs, key)
        assert ours.dtype == theirs.dtype
    draw_pictures(tmp_path)
    assert (tmp_path / LIST).read_text() == (WHOLE / "data" / LIST).read_text()
    for line in (tmp_path / LIST).read_text().split():
        ours, theirs = (np.asarray(Image.open(folder / line)) for folder in (tmp_path, WHOLE / "data"))
        np.testing.assert_array_equal(ours, theirs)
