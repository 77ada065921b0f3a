"""Which weights a config means: of the run that it describes, of one named by older rules, or none."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewseg.engine.setup.lookup import find_base_learner, find_trained
from fewseg.engine.setup.run_path import RUN_CONFIG, RUN_LOG, run_folder
from fewseg.engine.setup.weights import BINDING, describe
from fewseg.engine.training.snapshot import BEST
from fewseg.util.checkpoint import save_checkpoint
from fewseg.util.config import Config, load_config
from fewseg.util.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[3]
BAM, FOLDER, PSPNET = (ROOT / f"config/{name}.yaml" for name in
                       ("pascal/bam_resnet50", "folder/bam_resnet50", "pascal/pspnet_resnet50"))  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class _Split:
    base = range(15)


def config_of(path: Path, *opts: object) -> Config:
    return load_config(path, [str(part) for part in opts])


def trained(config: Config, folder: Path | None = None, *, config_file: bool = True) -> Path:
    """Pretend that a run left its best weights, in its own folder or where older rules put it."""
    folder = folder or run_folder(config)
    folder.mkdir(parents=True)
    save_checkpoint(folder / BEST, {}, describe(config, _Split))
    if config_file:
        (folder / RUN_CONFIG).write_text(config.dump_yaml())
        (folder / RUN_LOG).write_text("")
    return folder / BEST


class TestTrained:
    def test_own_run_comes_first(self) -> None:
        plain, fast = config_of(BAM), config_of(BAM, "base_lr", 0.1)
        paths = trained(plain), trained(fast)
        assert (find_trained(plain, BEST), find_trained(fast, BEST)) == paths

    def test_run_named_by_older_rules_is_found(self, caplog: pytest.LogCaptureFixture) -> None:
        fast, folder = config_of(BAM, "base_lr", 0.1), Path("exp/pascal/bam_resnet50/split0_shot1")
        path = trained(fast, folder)
        assert find_trained(fast, BEST) == path and not caplog.messages
        assert find_trained(config_of(BAM), BEST) == path
        assert "was trained with base_lr 0.1, other than the config says" in caplog.text

    def test_weights_without_a_config_are_taken_by_their_place(self) -> None:
        path = trained(config_of(BAM), config_file=False)
        assert (
            find_trained(config_of(BAM), BEST)
            == find_trained(config_of(BAM, "ann_type", "bbox"), BEST)
            == path
        )

    def test_what_only_the_test_changes_needs_no_run_of_its_own(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = trained(config_of(BAM))
        assert find_trained(config_of(BAM, "ann_type", "bbox", "ori_resize", False), BEST) == path
        assert "trained with ann_type mask, ori_resize True" in caplog.text

    def test_another_training_is_refused_and_named(self) -> None:
        trained(config_of(BAM))
        trained(config_of(BAM, "base_lr", 0.2))
        trained(config_of(BAM, "split", 1))
        with pytest.raises(CheckpointError) as refused:
            find_trained(config_of(BAM, "base_lr", 0.1), BEST)
        said = str(refused.value)
        assert (
            "no such file; train it" in said and "with base_lr 0.005" in said and "with base_lr 0.2" in said
        )
        assert "split1" not in said and "\n" not in said

    def test_several_that_fit_are_named(self) -> None:
        for kind in ("bbox", "scribble"):
            trained(config_of(BAM, "ann_type", kind))
        with pytest.raises(
            CheckpointError, match=r"2 runs fit \(.*ann_type bbox; .*ann_type scribble\); name one"
        ):
            find_trained(config_of(BAM), BEST)

    def test_own_data_sets_are_not_confused(self) -> None:
        clothes = config_of(FOLDER, "data_root", "data/clothes")
        trained(clothes, Path("exp/folder/bam_resnet50/split0_shot1"))
        assert find_trained(clothes, BEST).is_file()
        with pytest.raises(CheckpointError, match="with data_root data/clothes"):
            find_trained(config_of(FOLDER, "data_root", "data/shoes"), BEST)

    def test_key_of_a_save_path_may_be_another(self) -> None:
        place = ("save_path", "runs/{fold}_{key}")
        path = trained(config_of(BAM, *place))
        assert find_trained(config_of(BAM, *place, "ann_type", "bbox"), BEST) == path
        with pytest.raises(CheckpointError, match=r"no such file; .* with base_lr 0\.005"):
            find_trained(config_of(BAM, *place, "base_lr", 0.1), BEST)

    def test_run_that_was_moved_is_found_by_its_config(self, tmp_path: Path) -> None:
        path = trained(config_of(BAM, "base_lr", 0.1), tmp_path / "moved")
        for opts in ((), ("ann_type", "bbox"), ("episodes", 5)):
            assert find_trained(config_of(path.with_name(RUN_CONFIG), *opts), BEST) == path
        with pytest.raises(CheckpointError, match="no such file"):
            find_trained(config_of(path.with_name(RUN_CONFIG), "split", 1), BEST)


class TestBaseLearner:
    def find(self, *opts: object, path: Path = BAM) -> Path:
        config = config_of(path, *opts)
        described = {**describe(config, _Split), "arch": "pspnet"}
        return find_base_learner(config, {key: described[key] for key in (*BINDING, "backbone_options")})

    def test_the_one_as_shipped_comes_first(self) -> None:
        path = trained(config_of(PSPNET))
        trained(config_of(PSPNET, "base_lr", 0.1))
        assert self.find() == path
        assert self.find("base_lr", 0.3) == path

    def test_backbone_options_tell_them_apart(self) -> None:
        width = ("Method.backbone_options.width", 32)
        narrow, wide = trained(config_of(PSPNET)), trained(config_of(PSPNET, *width))
        assert (self.find(), self.find(*width)) == (narrow, wide)
        with pytest.raises(CheckpointError) as refused:
            self.find("Method.backbone_options.width", 48)
        assert "--opts split 0 Method.backbone_options.width 48" in str(refused.value)
        assert "split0/best.safetensors is of backbone_options {}" in str(refused.value)

    def test_only_other_one_is_taken_and_several_are_named(self) -> None:
        first = trained(config_of(PSPNET, "base_lr", 0.1))
        assert self.find() == first
        second = trained(config_of(PSPNET, "base_lr", 0.2))
        with pytest.raises(CheckpointError, match="2 trained base learners fit: ") as refused:
            self.find()
        assert str(first) in str(refused.value) and str(second) in str(refused.value)

    def test_own_data_sets_and_folds_are_not_confused(self) -> None:
        base = FOLDER.with_name("pspnet_resnet50.yaml")
        clothes, shoes = (
            trained(config_of(base, "data_root", f"data/{name}")) for name in ("clothes", "shoes")
        )
        assert self.find("data_root", "/disk/shoes", path=FOLDER) == shoes
        assert self.find("data_root", "data/clothes", path=FOLDER) == clothes
        with pytest.raises(
            CheckpointError, match=r"--opts split 0 data_root data/hats, .*data_root data/clothes"
        ):
            self.find("data_root", "data/hats", path=FOLDER)
        with pytest.raises(CheckpointError, match="fold 2 is missing"):
            self.find("data_root", "data/clothes", "split", 2, path=FOLDER)

    def test_damaged_file_is_no_candidate(self) -> None:
        trained(config_of(PSPNET)).write_bytes(b"damaged")
        with pytest.raises(CheckpointError, match="no readable checkpoint"):
            self.find()
