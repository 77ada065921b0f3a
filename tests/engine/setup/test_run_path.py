"""A run's folder: today's name for what is shipped, another name for every other setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewseg.engine.setup.protocols import settled, training_protocol
from fewseg.engine.setup.run_path import RUN_CONFIG, RUN_LOG, key, label, result_key, run_folder, run_key
from fewseg.util.config import load_config
from fewseg.util.config.differences import TEST, TRAINING, differences
from fewseg.util.config.schema import SECTIONS
from fewseg.util.config.types import Effect
from fewseg.util.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = sorted(
    path for path in (ROOT / "config").rglob("*.yaml") if not {"_base_", "studies"} & {*path.parts}
)
BAM, FOLDER = ROOT / "config/pascal/bam_resnet50.yaml", ROOT / "config/folder/bam_resnet50.yaml"
PLAIN = Path("exp/pascal/bam_resnet50/split0_shot1")


def folder_of(path: Path, *opts: object) -> Path:
    return run_folder(load_config(path, [str(part) for part in opts]))


def test_every_key_is_classified_once() -> None:
    for section, model in SECTIONS.items():
        for name, field in model.model_fields.items():
            effects = [mark for mark in field.metadata if isinstance(mark, Effect)]
            assert len(effects) == 1, f"{section}.{name}: say by one Effect in the schema what it changes"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_shipped_config_keeps_the_name_by_custom(path: Path) -> None:
    shot = "" if path.stem.startswith("pspnet") else "_shot1"
    method = path.stem.replace("eftnet_", "msanet_")  # whose weights it adapts
    assert folder_of(path) == Path("exp") / path.parent.name / method / f"split0{shot}"


def test_fold_shot_and_what_changes_no_outcome_keep_it_too() -> None:
    assert folder_of(BAM, "split", 2, "shot", 5) == PLAIN.with_name("split2_shot5")
    speed = ("workers", 0, "print_freq", 1, "save_freq", 3, "cache_gib", 1, "resume", "auto", "compile", True)
    tests = ("episodes", 10, "seeds", "[1]", "Test_Finetune.weight", "a.safetensors", "adapt", "eftnet")
    assert folder_of(BAM, *speed, *tests) == PLAIN


def test_name_holds_what_differs() -> None:
    name = folder_of(BAM, "base_lr", 0.1, "optimizer", "adam", "Method.backbone_options.width", 32).name
    start, _, digits = name.rpartition("_")
    assert start == "split0_shot1_base_lr0.1-optimizer_adam-width32"
    assert len(digits) == 8 and int(digits, 16) >= 0
    assert (
        folder_of(BAM, "base_lr", 0.2, "optimizer", "adam", "Method.backbone_options.width", 32).name != name
    )


def test_runs_keep_the_names_of_earlier_versions() -> None:
    assert folder_of(BAM, "base_lr", 0.1).name == "split0_shot1_base_lr0.1_8e7b6cd6"
    base_learner = ROOT / "config/coco/pspnet_resnet101.yaml"
    assert folder_of(base_learner, "base_lr", 0.1).name == "split0_base_lr0.1_d2871b7a"


def test_long_name_counts_what_it_leaves_out() -> None:
    many = [part for key in ("aux_weight1", "aux_weight2", "power", "momentum") for part in (key, 0.123)]
    name = folder_of(BAM, *many, "epochs", 7, "clip_norm", 1, "val_episodes", 9, "batch_size", 3).name
    assert "-and" in name and "more_" in name and len(name) < 100
    assert name != folder_of(BAM, *many, "epochs", 7, "clip_norm", 2, "val_episodes", 9, "batch_size", 3).name


def test_data_root_names_the_run_unless_it_is_the_shipped_one() -> None:
    names = {folder_of(FOLDER, "data_root", root).name for root in ("data/clothes", "/disk/shoes")}
    assert names == {"split0_shot1_clothes", "split0_shot1_shoes"}
    foreign = {folder_of(FOLDER, "data_root", root).name for root in ("data/服装", "data/鞋", "data/kläder")}
    assert len(foreign | {"split0_shot1"}) == 4 and all(name.isascii() for name in foreign)
    assert folder_of(FOLDER, "data_root", "/elsewhere/data/folder/").name == "split0_shot1"
    assert folder_of(BAM, "data_root", "/disk/VOC2012") == PLAIN


def test_own_file_gets_the_name_that_its_overrides_would_have(tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text(f"_base_: {BAM}\nTrain: {{base_lr: 1e-1, workers: 3}}\n")
    assert folder_of(own) == folder_of(BAM, "base_lr", 0.1) != PLAIN
    own.write_text(f"_base_: {BAM}\n")
    assert folder_of(own) == PLAIN


def test_file_of_another_project_is_set_apart_and_paths_count_by_their_ends(tmp_path: Path) -> None:
    published = tmp_path / "pascal_split0_resnet50.yaml"
    text = "DATA: {{train_list: {}/pascal/voc_sbd_merge_noduplicate.txt}}\nTRAIN: {{layers: 50, epochs: 3}}"
    names = []
    for root in (".", "/disk/BAM", "/other"):
        published.write_text(text.format(root))
        names.append(folder_of(published))
    assert len(set(names)) == 1 and "train_list" not in str(names[0]) and "epochs3" in str(names[0])
    assert folder_of(published, "train_list", "lists/pascal/half.txt") != names[0]


def test_network_without_a_shipped_config_is_named_too() -> None:
    name = folder_of(BAM, "backbone", "resnet152")
    assert name.parent == Path("exp/pascal/bam_resnet152") and name.name.startswith("split0_shot1_")
    assert name != folder_of(BAM, "backbone", "resnet152", "base_lr", 0.1)


def keys_of(path: Path, *opts: object) -> tuple[str, str]:
    config = load_config(path, [str(part) for part in opts])
    return run_key(config), result_key(config)


def test_long_keys_tell_trainings_and_tests_apart_whatever_their_paths() -> None:
    run, result = keys_of(BAM)
    assert keys_of(BAM, "base_weight", "a/b.safetensors", "save_path", "x", "workers", 0) == (run, result)
    assert keys_of(BAM, "Test_Finetune.weight", "a/b.safetensors", "data_root", "/disk/VOC2012")[0] == run
    assert keys_of(BAM, "episodes", 10)[0] == run
    assert keys_of(BAM, "episodes", 10)[1] != result
    others = [("split", 1), ("shot", 5), ("base_lr", 0.1), ("data_root", "own"), ("train_list", "a/b.txt")]
    assert len({keys_of(BAM, *opts)[0] for opts in others} | {run}) == 6
    base_learner = ROOT / "config/pascal/pspnet_resnet50.yaml"
    assert keys_of(base_learner) == keys_of(base_learner, "shot", 5)


def another_value(key_path: str, value: object) -> object:
    """Return a value of a key that is not its own; no one checks whether it may have it."""
    known = {"Data.data_set": "coco", "Data.protocol": "hsnet", "Data.protocol_options": {"min_area": 7}}
    if key_path in known:
        return known[key_path]
    if isinstance(value, bool | dict):
        return not value if isinstance(value, bool) else {"added": 7}
    return value + 7 if isinstance(value, int | float) else (0.25,) if isinstance(value, tuple) else "a/other"


@pytest.mark.filterwarnings("ignore:Pydantic serializer")
def test_every_key_tells_runs_and_results_apart_as_it_says_of_itself() -> None:
    config = load_config(BAM)
    made_by_others = {"Data.mined_labels", "Method.base_weight"}
    for section, model in SECTIONS.items():
        for name, field in model.model_fields.items():
            key_path = f"{section}.{name}"
            value = another_value(key_path, getattr(getattr(config, section), name))
            changed = config.with_values(**{section: {name: value}})
            of_training = not {Effect.NOTHING, Effect.TEST} & set(field.metadata)
            of_run = of_training and key_path not in made_by_others
            of_test = of_run or (Effect.TEST in field.metadata and key_path != "Test_Finetune.weight")
            other_folder = of_training or key_path == "Train.save_path"
            assert (run_folder(changed) != run_folder(config)) == other_folder, key_path
            assert (run_key(changed) != run_key(config)) == of_run, key_path
            assert (result_key(changed) != result_key(config)) == of_test, key_path


def test_save_path_takes_placeholders() -> None:
    template = "runs/f{fold}s{shot}-{key}"
    first = folder_of(BAM, "save_path", template, "split", 2, "shot", 5)
    assert first == Path(f"runs/f2s5-{key(load_config(BAM), TRAINING)}")
    assert folder_of(BAM, "save_path", template, "split", 2, "shot", 5, "base_lr", 0.1) != first
    with pytest.raises(ConfigError, match=r"--opts save_path.*\{lr\} is no placeholder"):
        folder_of(BAM, "save_path", "runs/{lr}")


def test_complete_config_maps_to_the_same_folder(tmp_path: Path) -> None:
    for opts in (
        [],
        ["base_lr", "0.1", "split", "3"],
        ["save_path", "a/{fold}_{key}", "Method.options.x", "1"],
    ):
        config = load_config(BAM, opts)
        (tmp_path / RUN_CONFIG).write_text(config.dump_yaml())
        assert folder_of(tmp_path / RUN_CONFIG) == run_folder(config)


@pytest.mark.parametrize(
    ("data", "changes"),
    [("pascal", {"val_size": 400}), ("coco", {"val_size": 400, "use_split_coco": True})],
)
def test_what_a_config_leaves_to_its_protocol_counts_as_if_it_were_set(
    tmp_path: Path, data: str, changes: dict[str, object]
) -> None:
    opened, complete = tmp_path / "mine.yaml", tmp_path / "complete.yaml"
    opened.write_text(f"Data: {{data_set: {data}, protocol: hsnet}}\nMethod: {{arch: bam}}\n")
    config = load_config(opened)
    complete.write_text(settled(config).dump_yaml())
    assert training_protocol(load_config(complete)) == training_protocol(config)
    same = [part for change in changes.items() for part in change]
    for path, opts in ((complete, []), (opened, same)):
        assert (folder_of(path, *opts), keys_of(path, *opts)) == (folder_of(opened), keys_of(opened))
    for name in changes:
        other = [name, {"val_size": 473, "use_split_coco": False}[name]]
        assert folder_of(opened, *other) != folder_of(opened)
        assert not set(keys_of(opened, *other)) & set(keys_of(opened))


def test_config_of_a_run_that_was_moved_or_named_by_older_rules_is_at_home(tmp_path: Path) -> None:
    (tmp_path / RUN_CONFIG).write_text(load_config(BAM, ["base_lr", "0.1"]).dump_yaml())
    (tmp_path / RUN_LOG).write_text("")
    assert folder_of(tmp_path / RUN_CONFIG, "workers", 0, "episodes", 5) == tmp_path
    assert folder_of(tmp_path / RUN_CONFIG, "split", 1) == folder_of(BAM, "base_lr", 0.1, "split", 1)
    assert folder_of(tmp_path / RUN_CONFIG, "base_lr", 0.2) == folder_of(BAM, "base_lr", 0.2)


def test_label_of_a_test_holds_what_changes_its_figures() -> None:
    def of(*opts: str) -> str:
        return label(load_config(BAM, opts), TEST)

    assert of() == of("base_lr", "0.1") == of("cache_gib", "1") == ""
    assert of("episodes", "100").startswith("episodes100_")
    assert len({of("episodes", "100"), of("seeds", "[1]"), of("episodes", "100", "seeds", "[1]")}) == 3


def test_differences_name_the_keys() -> None:
    shipped, ours = load_config(BAM), load_config(BAM, ["base_lr", "0.1", "Method.options.pool", "8"])
    assert differences(ours, shipped, TRAINING) == {"Train.base_lr": 0.1, "Method.options.pool": 8}
    assert differences(shipped, ours, TRAINING) == {"Train.base_lr": 0.005, "Method.options.pool": None}
