"""Names of results, which of them share a table, and what makes room for what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fewseg.util.checkpoint import file_hash
from fewseg.util.results.comparison import read_runs
from fewseg.util.results.folder import BASELINES, EARLIER, ResultFolder, baselines_of, comparable_groups
from fewseg.util.results.identity import file_name, same_measurement, table_name
from fewseg.util.results.result import Result, SeedResult


def make(method: str = "bam", seeds: tuple[int, ...] = (1, 2), **changes: Any) -> Result:
    given = {"backbone": "resnet50", "data_set": "pascal", "fold": 0, "shot": 1, "protocol": "bam"}
    given |= {"episodes": 1000, "seconds": 1.5, "checkpoint_hash": "ab" * 32, **changes}
    of_seed = [
        SeedResult(seed=seed, episode_hash=f"{given['fold']}{given['shot']}{seed}", metrics={"mIoU": 0.5})
        for seed in seeds
    ]
    return Result(method=method, **given, seeds=tuple(of_seed))


def grouped(*results: Result) -> list[list[Result]]:
    files = {Path(f"{number}.json"): result for number, result in enumerate(results)}
    return [[*group.values()] for group in comparable_groups(files).values()]


class TestNames:
    def test_of_the_protocol_as_it_is(self) -> None:
        assert file_name(make(seeds=(1, 2, 3, 4, 5))) == "bam_resnet50_pascal_bam_fold0_1shot_5x1000.json"
        assert table_name(make()) == "pascal_bam_2x1000"

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"episodes": 10}, "1shot_2x10"),
            ({"ways": 2}, "1shot_2way_2x1000"),
            ({"annotation": "bbox"}, "1shot_bbox_2x1000"),
            ({"setting": "generalised-base"}, "1shot_generalised-base_2x1000"),
            ({"protocol_difference": {"seeds": ((5,), (1, 2))}}, "1shot_2x1000_seeds1-2"),
            ({"variant": "clothing_base_lr0.1_12345678"}, "1shot_2x1000_clothing_base_lr0.1_12345678"),
        ],
    )
    def test_of_what_differs(self, changes: dict[str, Any], expected: str) -> None:
        assert file_name(make(**changes)) == f"bam_resnet50_pascal_bam_fold0_{expected}.json"

    def test_stay_short(self) -> None:
        many = make(seeds=tuple(range(40)), protocol_difference={"seeds": ((5,), (1, 2))}, variant="v" * 200)
        other = make(seeds=tuple(range(41)), protocol_difference={"seeds": ((5,), (1, 2))}, variant="v" * 201)
        names = [file_name(result).split("_seeds")[1] for result in (many, other)]
        assert names[0] != names[1] and all(len(name) == len("12345678_12345678.json") for name in names)

    def test_long_variant_is_shortened_to_its_first_terms_and_a_key(self) -> None:
        variants = [f"base_lr0.1-optimizer_adam-power0.5-width{width}_12345678" for width in (32, 64)]
        names = [file_name(make(variant=variant)).split("2x1000_")[1] for variant in variants]
        assert [name[:-13] for name in names] == ["base_lr0.1-optimizer_adam_"] * 2
        assert len(set(names)) == 2 and all(len(name) <= len(".json") + 40 for name in names)

    def test_of_tables_say_what_was_changed_in_the_protocol(self) -> None:
        changed = make(protocol_difference={"episodes": (1000, 10), "min_area": (0, 512)}, episodes=10)
        assert table_name(changed) == "pascal_bam_2x10_min_area512"


class TestSameMeasurement:
    CONFIG = {
        "Data": {"val_size": 473},
        "Train": {"base_lr": 0.1, "manual_seed": 1},
        "Method": {"base_weight": "b", "merge_tau": 0.5},
        "Test_Finetune": {"weight": "a", "cache_gib": 4.0, "precision": "float32"},
    }

    @pytest.mark.parametrize(
        ("section", "key", "same"),
        [
            ("Data", "val_size", False),
            ("Train", "base_lr", True),
            ("Train", "manual_seed", False),
            ("Method", "base_weight", True),
            ("Method", "merge_tau", False),
            ("Test_Finetune", "weight", True),
            ("Test_Finetune", "cache_gib", True),
            ("Test_Finetune", "precision", False),
        ],
    )
    def test_settings_count_where_they_change_a_figure(self, section: str, key: str, same: bool) -> None:
        other = {**self.CONFIG, section: {**self.CONFIG[section], key: 7}}
        assert same_measurement(make(config=self.CONFIG), make(config=other)) is same

    def test_keys_that_were_removed_since_count_as_far_as_they_had_an_effect(self) -> None:
        def earlier(**test: object) -> Result:
            more = {"Data": {"val_size": 473, "ignore_label": 255}, "Test_Finetune": {"cache_gib": 4, **test}}
            return make(config={**self.CONFIG, "Method": {"merge_tau": 0.5, "merge": "final"}, **more})

        today = {**self.CONFIG, "Test_Finetune": {"adapt_options": {"rounds": 3}}}
        assert same_measurement(earlier(ft_number=3, ft_power=0.9), make(config=today))
        assert same_measurement(earlier(ft_number=5), make(config=self.CONFIG))
        assert not same_measurement(earlier(ft_number=4), make(config=today))

    def test_a_key_that_was_added_since_has_its_default_in_older_results(self) -> None:
        for default, same in (("mask", True), ("bbox", False)):
            newer = {**self.CONFIG, "Data": {**self.CONFIG["Data"], "ann_type": default}}
            assert same_measurement(make(config=self.CONFIG), make(config=newer)) is same

    @pytest.mark.parametrize(
        "changes",
        [{"checkpoint_hash": "cd" * 32}, {"seeds": (1, 3)}, {"episodes": 10}, {"oracle": True}, {"shot": 5}],
        ids=str,
    )
    def test_so_do_weights_episodes_and_seeds(self, changes: dict[str, Any]) -> None:
        assert not same_measurement(make(), make(**changes))
        assert same_measurement(make(), make(seconds=3.0, checkpoint="elsewhere", versions={}, key="1f"))


class TestToldApart:
    """Of two results with one name, the second gets another one, unless it takes the place of the first."""

    def test_other_weights_as_long_as_the_first_ones_are_there(self, tmp_path: Path) -> None:
        first, folder = tmp_path / "a.safetensors", ResultFolder(tmp_path)
        first.write_text("weights")
        folder.add(make(checkpoint=str(first), checkpoint_hash=file_hash(first)))
        other = make(checkpoint="b.safetensors", checkpoint_hash="cd" * 32)
        assert folder.told_apart(other).variant == "weights_cdcdcdcd"
        assert folder.told_apart(make(variant="x", checkpoint_hash="cd" * 32)).variant == "x"
        first.write_text("trained anew")
        assert folder.told_apart(other) == other
        first.unlink()
        assert folder.told_apart(other) == other

    @pytest.mark.parametrize(
        ("section", "key", "values", "seeds", "mark"),
        [
            ("Test_Finetune", "episodes_file", (["a/1.jsonl"], ["b/1.jsonl"]), (1, 2), "episodes_"),
            ("Data", "val_list", ("a/x/1.txt", "b/x/1.txt"), (1, 2), "episodes_"),
            ("Data", "data_root", ("a/clothes", "b/clothes"), (1, 2), "episodes_"),
            ("Data", "val_size", (97, 65), (1, 1), "settings_"),
            ("Data", "data_root", ("a/clothes", "b/clothes"), (1, 1), ""),
            ("Data", "val_size", (97, 97), (1, 2), ""),
            ("Train", "workers", (0, 8), (1, 1), ""),
        ],
        ids=["manifest", "list", "data", "setting", "data moved", "data changed", "speed"],
    )
    def test_other_settings_of_the_same_weights(
        self, tmp_path: Path, section: str, key: str, values: tuple, seeds: tuple[int, int], mark: str
    ) -> None:
        def with_value(index: int) -> Result:
            result = make(config={section: {key: values[index]}})
            shown = [seed.model_copy(update={"episode_hash": str(seeds[index])}) for seed in result.seeds]
            return result.model_copy(update={"seeds": tuple(shown)})

        folder = ResultFolder(tmp_path)
        folder.add(with_value(0))
        told = folder.told_apart(with_value(1)).variant or ""
        assert told.startswith(mark) and bool(told) is bool(mark)
        assert folder.told_apart(with_value(0)).variant is None


class TestGroups:
    def test_methods_folds_and_shots_share_a_table(self) -> None:
        results = make(), make(fold=1), make(shot=5), make("pfenet"), make(variant="other_12345678")
        (group,) = grouped(*results)
        assert len(group) == 5

    @pytest.mark.parametrize(
        "changes",
        [
            {"protocol": "pfenet"},
            {"protocol_difference": {"min_area": (0, 512)}},
            {"episodes": 10},
            {"seeds": (1, 3)},
            {"annotation": "bbox"},
            {"setting": "generalised-base"},
            {"oracle": True},
            {"novel_in_train": "background"},
            {"data_set": "coco"},
        ],
        ids=str,
    )
    def test_what_may_not_be_compared_does_not(self, changes: dict[str, Any]) -> None:
        one, other = make(novel_in_train="remove"), make("pfenet", **{"novel_in_train": "remove", **changes})
        assert len(grouped(one, other)) == 2

    def test_no_row_holds_a_fold_twice(self) -> None:
        assert grouped(make(), make(), make("pfenet")) == [[make(), make("pfenet")], [make()]]

    def test_both_merges_share_a_table(self) -> None:
        merges = [make(setting=f"generalised-{merge}") for merge in ("base", "final")]
        assert grouped(*merges) == [merges]

    def test_baselines_are_those_on_the_same_episodes_once(self) -> None:
        copied = [make("copied", fold=fold, variant=variant) for fold in (0, 1) for variant in (None, "min9")]
        results = [make(variant="slow_12345678"), make("pfenet", variant="slow_12345678")]
        assert baselines_of(results, copied) == [make("copied", variant="slow_12345678")]
        assert baselines_of([*results, make()], copied) == [make("copied")]


class TestFolder:
    def stored(self, folder: ResultFolder, result: Result) -> Path:
        folder.path.mkdir(exist_ok=True)
        path = folder.add(result)
        path.with_suffix(".npz").write_bytes(b"counts")
        picture = folder.pictures_of(path) / "episode_000.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(b"picture")
        return path

    def test_the_same_measurement_makes_no_room(self, tmp_path: Path) -> None:
        folder = ResultFolder(tmp_path)
        self.stored(folder, make())
        assert folder.make_room(make(seconds=9.0)) == [] and len(folder.results()) == 1

    def test_another_of_the_same_name_does_with_all_that_belongs_to_it(self, tmp_path: Path) -> None:
        folder = ResultFolder(tmp_path)
        for number in range(2):
            path = self.stored(folder, make(config={"Data": {"number": number}}))
            (moved,) = folder.make_room(make())
            assert not path.exists() and moved.parent == tmp_path / EARLIER
            assert moved.with_suffix(".npz").read_bytes() == b"counts"
            assert (moved.parent / "pictures" / moved.stem / "episode_000.png").read_bytes() == b"picture"
        assert len([*(tmp_path / EARLIER).glob("*abababab*.json")]) == 2

    def test_a_file_that_is_no_result_is_left_out_and_never_overwritten(self, tmp_path: Path) -> None:
        folder = ResultFolder(tmp_path)
        folder.file_of(make()).write_text('{"fewseg_result": 99}')
        (tmp_path / "package.json").write_text("{}")
        assert folder.results() == {} and folder.find(make()) is None
        (moved,) = folder.make_room(make())
        assert moved.read_text() == '{"fewseg_result": 99}'

    def test_comparisons_leave_out_what_was_put_aside(self, tmp_path: Path) -> None:
        for name in ("", BASELINES, EARLIER):
            ResultFolder(tmp_path / name).path.mkdir(exist_ok=True)
            ResultFolder(tmp_path / name).add(make(variant=name or None))
        (tmp_path / ".fewseg.owner.json").write_text("{}")
        assert [run.result.variant for run in read_runs([str(tmp_path)])] == [None]
        for name in (BASELINES, EARLIER):
            assert [run.result.variant for run in read_runs([str(tmp_path / name)])] == [name]
