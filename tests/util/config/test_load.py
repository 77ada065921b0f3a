"""Config files: inheritance, overrides, published files, and one clear line for every mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fewseg.util.config import load_config
from fewseg.util.errors import ConfigError
from tests.util import published_configs as published

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def _write(text: str, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return _write


def complaint(path: Path, *opts: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, opts)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{path.parent}/", "")


class TestInheritance:
    def test_mappings_merge_and_lists_replace(self, write: Write) -> None:
        write(
            "Train: {epochs: 7, base_lr: 0.5}\nMethod:\n  ppm_scales: [60, 30]\n  options: {a: 1, b: 2}\n",
            "base.yaml",
        )
        path = write("_base_: base.yaml\nTrain: {epochs: 9}\nMethod:\n  ppm_scales: [8]\n  options: {a: 3}\n")
        config = load_config(path)
        assert (config.Train.epochs, config.Train.base_lr) == (9, 0.5)
        assert config.Method.ppm_scales == (8.0,)
        assert config.Method.options == {"a": 3, "b": 2}

    def test_bases_are_relative_and_later_ones_win(self, write: Write, tmp_path: Path) -> None:
        (tmp_path / "_base_").mkdir()
        write("Data: {split: 1, shot: 2}\n", "_base_/first.yaml")
        write("Data: {split: 3}\n", "_base_/second.yaml")
        config = load_config(write("_base_: [_base_/first.yaml, _base_/second.yaml]\n"))
        assert (config.Data.split, config.Data.shot) == (3, 2)

    def test_tells_where_a_value_comes_from(self, write: Write) -> None:
        write("Train:\n\n  base_lr: 0.5\n", "base.yaml")
        config = load_config(write("_base_: base.yaml\nData:\n  split: 1\n"), ["shot", "5"])
        assert config.where("Train.base_lr").endswith("base.yaml:3")
        assert config.where("Data.split").endswith("run.yaml:3")
        assert config.where("Data.shot") == "--opts shot"
        assert config.where("Train.epochs") == "default"

    def test_circle(self, write: Write) -> None:
        write("_base_: run.yaml\n", "base.yaml")
        message = complaint(write("_base_: base.yaml\n"))
        assert "run.yaml -> base.yaml -> run.yaml" in message

    def test_missing_base(self, write: Write) -> None:
        assert "no such config file: gone.yaml" in complaint(write("_base_: gone.yaml\n"))


class TestOverrides:
    def test_by_leaf_by_path_and_for_the_method(self, write: Write) -> None:
        opts = ["split", "1", "Train.base_lr", "1e-4", "seeds", "[1, 2]", "Method.options.shift", "0.5"]
        config = load_config(write("Data: {split: 0}\n"), opts)
        assert config.Data.split == 1
        assert config.Train.base_lr == 1e-4
        assert config.Test_Finetune.seeds == (1, 2)
        assert config.Method.options == {"shift": 0.5}

    @pytest.mark.parametrize(
        ("opts", "expected"),
        [
            (["split"], "'split' has no value"),
            (["splt", "1"], "did you mean split?"),
            (["Trian.epochs", "1"], "did you mean Train?"),
            (["weight", "a.pth"], "Train.weight or Test_Finetune.weight"),
            (["split", "1", "Data.split", "2"], "duplicate key"),
            (["Method.options.a", "1", "Method.options.a", "2"], "Method.options.a: duplicate key"),
            (["Data.protocol_options", "{a: 1}", "data.protocol_options.a", "2"], "options.a: duplicate key"),
            (["split", "[1"], "put it in quotes"),
        ],
    )
    def test_mistakes(self, write: Write, opts: list[str], expected: str) -> None:
        message = complaint(write("Data: {split: 0}\n"), *opts)
        assert message.startswith("--opts")
        assert expected in message


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Train:\n  base_lrr: 1\n", "run.yaml:2: Train.base_lrr: unknown key; did you mean base_lr?"),
            ("Model:\n  x: 1\n", "run.yaml:2: Model: unknown section"),
            (
                "Train:\n  epochs: 1\n  epochs: 2\n",
                "run.yaml:3: Train.epochs: duplicate key, first given in line 2",
            ),
            ("Data:\n  split: 1\nTrain:\n  split: 2\n", "run.yaml:4: Data.split: duplicate key"),
            ("Train:\n  epochs: many\n", "run.yaml:2: Train.epochs: must be a whole number, got 'many'"),
            ("Train:\n  epochs: True\n", "run.yaml:2: Train.epochs: must be a number, got True"),
            ("Train:\n  epochs: [1]\n", "run.yaml:2: Train.epochs: must be a whole number, got [1]"),
            ("Train:\n  epochs: {a: 1}\n", "run.yaml:2: Train.epochs: must be a whole number, got a mapping"),
            ("Train:\n  base_lr: 0\n", "run.yaml:2: Train.base_lr: must be greater than 0, got 0"),
            ("Train:\n  base_lr: .nan\n", "run.yaml:2: Train.base_lr: must be a finite number"),
            ("Train:\n  evaluate: maybe\n", "run.yaml:2: Train.evaluate: must be True or False, got 'maybe'"),
            ("Data:\n  shot: 0\n", "run.yaml:2: Data.shot: must be at least 1, got 0"),
            ("Data:\n  val_size: 8\n", "run.yaml:2: Data.val_size: must be at least 32, got 8"),
            ("Data:\n  data_set: voc\n", "run.yaml:2: Data.data_set: must be one of 'pascal'"),
            ("Data:\n  split: 5\n", "run.yaml:2: Data.split: pascal has the folds 0 to 4, got 5"),
            ("Data:\n  split: -1\n", "run.yaml:2: Data.split: must be at least 0, got -1"),
            (
                "Data: {split: 1, data_set: fss1000}\n",
                "run.yaml:1: Data.split: fss1000 has fold 0 only, got 1",
            ),
            (
                "Test_Finetune:\n  folds: [0, 7]\n",
                "run.yaml:2: Test_Finetune.folds: pascal has the folds 0 to 4, got 7",
            ),
            ("Data:\n  scale_min: 2\n", "run.yaml:2: Data.scale_min: must not exceed scale_max"),
            ("Method:\n  options: 3\n", "run.yaml:2: Method.options: must be a mapping, got 3"),
            ("- a list\n", "run.yaml:1: must be a mapping of sections"),
            ("", "run.yaml:1: must be a mapping of sections"),
            ("Train: 3\n", "run.yaml:1: Train: must be a section"),
            ("Train:\n\tepochs: 3\n", "run.yaml:2: no valid YAML"),
            ("Train:\n  epochs: !!python/object:os.x 3\n", "run.yaml:2: values of type"),
            (
                "Train:\n  epochs: 12:30:45\n",
                "run.yaml:2: Train.epochs: must be a whole number, got '12:30:45'",
            ),
            ("Train:\n  epochs: 0x1F\n", "run.yaml:2: Train.epochs: must be a whole number"),
            ("Train:\n  start_epoch: 200\n", "run.yaml:2: Train.start_epoch: must be below epochs = 200"),
            ("Train:\n  accumulate: 3\n", "run.yaml:2: Train.accumulate: must divide batch_size = 8, got 3"),
            ("Train:\n  accumulate: 0\n", "run.yaml:2: Train.accumulate: must be at least 1, got 0"),
            ("Train:\n  amp: float16\n", "run.yaml:2: Train.amp: must be bfloat16 or False, got 'float16'"),
            ("Train:\n  amp: 1\n", "run.yaml:2: Train.amp: must be bfloat16 or False, got 1"),
            ("Train:\n  tf32: maybe\n", "run.yaml:2: Train.tf32: must be True or False, got 'maybe'"),
            ("Train:\n  compile: fast\n", "run.yaml:2: Train.compile: must be True, False, reduce-"),
            ("Train:\n  momentum: 1\n", "run.yaml:2: Train.momentum: must be at most 0.9999, got 1"),
            ("Train:\n  workers: 5000\n", "run.yaml:2: Train.workers: must be at most 256, got 5000"),
            ("Train:\n  val_episodes: 1e9\n", "run.yaml:2: Train.val_episodes: must be at most 1000000"),
            ("Data:\n  scale_max: 1000\n", "run.yaml:2: Data.scale_max: must be at most 20"),
            ("Test_Finetune:\n  adapt: magic\n", "run.yaml:2: Test_Finetune.adapt: must be one of 'eftnet'"),
            ("Test_Finetune:\n  seeds: []\n", "run.yaml:2: Test_Finetune.seeds: must have at least 1 values"),
            (
                "Test_Finetune:\n  seeds: [1, 1]\n",
                "run.yaml:2: Test_Finetune.seeds: must not name a value twice",
            ),
            ('Train:\n  save_path: "a\\0b"\n', "run.yaml:2: Train.save_path: must be a path"),
            ('Train:\n  "a\\nb": 1\n', r"run.yaml:2: a key must be a plain word, got 'a\nb'"),
            (
                "Method:\n  options: {x: " + "[" * 300 + "]" * 300 + "}\n",
                "nested ",
            ),
            (
                "Method:\n  options: {x: " + "[" * 20 + "]" * 20 + "}\n",
                "run.yaml:2: nested more than 10 deep",
            ),
            (
                "Method:\n  options:\n    a: &a [" + "1, " * 99 + "1]\n    b: &b [" + "*a, " * 99 + "*a]\n"
                "    c: [" + "*b, " * 99 + "*b]\n",
                "run.yaml:4: more than 10000 values",
            ),
            ("_base_: 3\n", "run.yaml:1: _base_: must be a file name"),
        ],
    )
    def test_one_line_says_where_and_what(self, write: Write, text: str, expected: str) -> None:
        assert expected in complaint(write(text))

    def test_missing_file(self, tmp_path: Path) -> None:
        assert complaint(tmp_path / "gone.yaml") == "--config: no such config file: gone.yaml; check the path"

    @pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "y" * 300, "a\nb"])
    def test_names_that_are_none(self, name: str) -> None:
        with pytest.raises(ConfigError, match=r"^--config: '.* is no path"):
            load_config(name)

    def test_binary_file(self, tmp_path: Path) -> None:
        (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\x00")
        assert "no text in UTF-8" in complaint(tmp_path / "run.yaml")

    def test_config_is_read_only(self, write: Write) -> None:
        config = load_config(write("Data: {split: 0}\n"))
        with pytest.raises(ValueError, match="frozen"):
            config.Data.split = 1


class TestPublishedFiles:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                published.BAM_STAGE_1,
                {"arch": "pspnet", "backbone": "vgg16", "data_set": "coco", "base_lr": 2.5e-4},
            ),
            (published.BAM_STAGE_2, {"arch": "bam", "backbone": "resnet50", "fix_bn": True, "weight": None}),
            (published.MSANET, {"weight": "/home/someone/Our model_ public/resnet50_5_3_0.5093.pth"}),
            (
                published.EFTNET,
                {
                    "arch": "msanet",
                    "adapt": "eftnet",
                    "adapt_options": {"sr_aux_weight1": 0.9},
                    "manual_seed": 123,
                },
            ),
            (
                published.PFENET,
                {"arch": "pfenet", "backbone": "resnet101", "data_set": "coco", "train_list": None},
            ),
            (published.MIANET, {"backbone": "vgg16", "ppm_scales": (60, 30, 15, 8), "manual_seed": 1234}),
        ],
        ids=["bam stage 1", "bam stage 2", "msanet", "eftnet", "pfenet", "mianet"],
    )
    def test_loads_unchanged(self, write: Write, text: str, expected: dict) -> None:
        config = load_config(write(text))
        values: dict = {}
        for section in (config.Train, config.Data, config.Method, config.Test_Finetune):
            values |= dict(section)
        assert {key: values[key] for key in expected} == expected

    def test_stage_is_told_by_the_method(self, write: Write) -> None:
        assert load_config(write(published.BAM_STAGE_1)).Method.arch == "pspnet"
        assert load_config(write(published.BAM_STAGE_2)).Method.arch == "bam"
        assert load_config(write(published.BAM_STAGE_2), ["arch", "PSPNet"]).Method.arch == "pspnet"

    @pytest.mark.parametrize(
        ("opts", "backbone"),
        [
            (["layers", "101"], "resnet101"),
            (["vgg", "True"], "vgg16"),
            (["backbone", "resnet18"], "resnet18"),
        ],
    )
    def test_published_spellings_in_overrides(self, write: Write, opts: list[str], backbone: str) -> None:
        assert load_config(write(published.BAM_STAGE_2), opts).Method.backbone == backbone

    def test_turning_vgg_off_brings_the_layers_back(self, write: Write) -> None:
        assert load_config(write(published.MIANET), ["vgg", "False"]).Method.backbone == "resnet50"

    def test_values_written_as_text(self, write: Write) -> None:
        config = load_config(write("Data: {ori_resize: 'False', shot: '5'}\nMethod: {vgg: 'True'}\n"))
        assert (config.Data.ori_resize, config.Data.shot, config.Method.backbone) == (False, 5, "vgg16")

    def test_keys_without_effect_are_told_with_line_and_reason(self, write: Write) -> None:
        notices = "\n".join(load_config(write(published.PFENET)).notices)
        assert "train_gpu has no effect: processes are started by torchrun" in notices
        for key in ("ignore_label", "padding_label", "zoom_factor", "classes"):
            assert re.search(rf"run\.yaml:\d+: {key} has no effect: ", notices)
        (notice,) = load_config(write("Data: {split: 0}\n"), ["merge", "base"]).notices
        assert notice == "--opts merge: merge has no effect: a generalised test reports both ways to merge"

    def test_a_complete_config_is_not_blamed_for_the_keys_of_an_earlier_version(self, write: Write) -> None:
        complete = load_config(write("Data: {split: 1}\n")).dump_yaml()
        earlier = {"Data": "ignore_label: 255\n  padding_label: 255\n  classes: 2\n  base_data_root: data"}
        earlier |= {"Method": "zoom_factor: 8", "Test_Finetune": "merge: final"}
        for section, lines in earlier.items():
            complete = complete.replace(f"{section}:\n", f"{section}:\n  {lines}\n")
        assert load_config(write(complete)).notices == ()
        (notice,) = load_config(write(complete), ["zoom_factor", "4"]).notices
        assert notice.startswith("--opts zoom_factor: ")
        (notice,) = load_config(write(complete + "  train_gpu: [0]\n")).notices
        assert "train_gpu" in notice
        shortened = re.sub("  ensemble: .*\n", "", complete)
        assert len(load_config(write(shortened)).notices) == 6

    def test_adaptation_keys_are_options_and_defaults_are_left_out(self, write: Write) -> None:
        path = write("Test_Finetune: {ft_number: 3, ft_power: 0.9}\n")
        config = load_config(path, ["q2s_filt_para", "0.4", "Test_Finetune.adapt_options.q2s_empty", "none"])
        assert config.Test_Finetune.adapt_options == {"rounds": 3, "q2s_filt_para": 0.4, "q2s_empty": "none"}
        assert config.where("Test_Finetune.adapt_options.rounds").endswith("run.yaml:1")
        assert load_config(path, ["ft_number", "5"]).Test_Finetune.adapt_options == {}

    def test_option_is_not_given_under_two_names(self, write: Write) -> None:
        text = "Test_Finetune:\n  ft_number: 3\n  adapt_options: {rounds: 4}\n"
        expected = "run.yaml:3: Test_Finetune.adapt_options.rounds: duplicate key, first given at run.yaml:2"
        assert expected in complaint(write(text))


def test_exponent_without_point_is_a_number(write: Write) -> None:
    assert load_config(write("Train: {weight_decay: 1e-4, base_lr: 2E2}\n")).Train.weight_decay == 1e-4


def test_dates_and_times_are_text(write: Write) -> None:
    config = load_config(
        write("Train: {save_path: 2020-13-45, weight: 12:30:45, resume: 010, epochs: 010}\n")
    )
    train = config.Train
    assert (train.save_path, train.weight, train.resume) == ("2020-13-45", "12:30:45", "010")
    assert train.epochs == 10
    assert load_config(write(config.dump_yaml(), "dump.yaml")).as_dict() == config.as_dict()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *(("lr", "base_lr"), ("learning_rate", "base_lr"), ("num_epochs", "epochs"), ("seed", "manual_seed")),
        *(("max_iter", "max_steps"), ("num_workers", "workers"), ("dataset", "data_set"), ("fold", "split")),
        *(("bach_size", "batch_size"), ("optimiser", "optimizer"), ("batch-size", "batch_size")),
        *(("zebra", None), ("q", None), ("annotation", None)),
    ],
)
def test_hint_names_what_was_meant_or_nothing(write: Write, name: str, expected: str | None) -> None:
    message = complaint(write("Data: {split: 0}\n"), name, "1")
    assert f"did you mean {expected}?" in message if expected else "did you mean" not in message


def test_dump_reads_back(write: Write) -> None:
    config = load_config(write(published.EFTNET), ["Method.options.shift", "[1, a]"])
    again = load_config(write(config.dump_yaml(), "dump.yaml"))
    assert again.as_dict() == config.as_dict()


def test_none_unsets_a_key_on_the_command_line(write: Write) -> None:
    path = write("Train: {clip_norm: 0.5}\nTest_Finetune: {seeds: [1, 2]}\n")
    given = ["clip_norm", "None", "save_minutes", "None", "manual_seed", "None", "seeds", "None"]
    config = load_config(path, given)
    assert (config.Train.clip_norm, config.Train.save_minutes, config.Train.manual_seed) == (None,) * 3
    assert config.Test_Finetune.seeds is None
