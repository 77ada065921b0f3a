"""Named protocols and what may be changed in them."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from fewseg.dataset.episodes.protocol import LIST_FILES, PROTOCOLS, Protocol, load_protocol
from fewseg.util.errors import ConfigError


def test_the_presets_are_those_of_the_comparison_table():
    assert list(PROTOCOLS) == ["bam", "pfenet", "hsnet", "panet", "mlc", "cdfss"]
    removed = [name for name, preset in PROTOCOLS.items() if preset.novel_in_train == "remove"]
    assert removed == ["bam"]
    assert PROTOCOLS["bam"].seeds == (510, 365, 382, 322, 988)
    assert [preset.episodes for preset in PROTOCOLS.values()] == [1000, 5000, 1000, 1000, 1000, 600]
    assert [preset.input_size for preset in PROTOCOLS.values()] == [473, 473, 400, 417, 473, 400]


def test_coco_changes_sizes_episodes_and_void():
    assert load_protocol("bam", "coco").input_size == 641
    assert [load_protocol(name, "coco").episodes for name in PROTOCOLS] == [
        *(1000, 20000, 1000, 1000, 4000, 600),
    ]
    assert [load_protocol(name, "coco").interleaved_folds for name in PROTOCOLS] == [
        True,
        True,
        True,
        False,
        False,
        True,
    ]
    assert load_protocol("cdfss").query_order == "in_turn"
    assert load_protocol("cdfss", "fss1000").query_order == "pairs"
    assert load_protocol("cdfss", "fss1000").episodes == 2400
    assert load_protocol("hsnet").ignore and not load_protocol("hsnet", "coco").ignore


def test_every_point_can_be_changed_and_the_difference_shows():
    changed = load_protocol("bam", novel_in_train="background", seeds=[1, 2], episodes=10000)
    assert changed.difference() == {
        "novel_in_train": ("remove", "background"),
        "seeds": ((510, 365, 382, 322, 988), (1, 2)),
        "episodes": (1000, 10000),
    }
    assert load_protocol("bam").difference() == {}
    assert set(load_protocol("pfenet").difference(PROTOCOLS["bam"])) == {
        "name",
        "novel_in_train",
        "episodes",
        "seeds",
        "pretrained",
    }


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({"episode": 5}, r"^protocol bam: there is no point episode; did you mean episodes\?$"),
        (
            {"xyz": 5},
            "^protocol bam: there is no point xyz; known are novel_in_train, train_images, .*, backbone$",
        ),
        (
            {"min_area": -1},
            "^protocol bam: min_area cannot be -1: Input should be greater than or equal to 0$",
        ),
        ({"seeds": [1, -2]}, "seeds cannot be -2"),
        ({"selection": "best"}, "selection cannot be 'best'"),
        ({"resize": "squeeze"}, "resize cannot be 'squeeze'"),
        ({"episodes": 0}, "episodes cannot be 0"),
        ({"episodes": "many"}, "episodes cannot be 'many'"),
        ({"seeds": ()}, "seeds cannot be"),
        ({"ignore": 1}, "ignore cannot be 1"),
    ],
)
def test_a_bad_point_is_one_line(points, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_protocol("bam", **points)
    assert "\n" not in str(caught.value)


def test_the_least_values_are_allowed():
    assert load_protocol("bam", min_area=0, episodes=1, input_size=1, seeds=[0]).seeds == (0,)


@pytest.mark.parametrize("point", ["train_images", "test_images"])
def test_images_may_come_from_any_list_that_the_readme_of_lists_names(point):
    text = (Path(__file__).parents[3] / "lists/README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`pascal/(\w+\.txt)`", text)) == set(LIST_FILES.values())
    for source, file in LIST_FILES.items():
        assert getattr(load_protocol("bam", **{point: source}), point) == source
        assert file == ("voc_sbd_merge_noduplicate.txt" if source == "merged" else f"{source}.txt")
    assert getattr(load_protocol("bam", **{point: "own"}), point) == "own"


def test_the_name_is_no_point_to_be_changed():
    with pytest.raises(ConfigError, match="there is no point name"):
        load_protocol("bam").with_overrides(name="mine")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_data_set_of_ones_own_has_only_its_own_lists(name):
    own, pascal = load_protocol(name, "folder"), load_protocol(name)
    assert (own.train_images, own.test_images) == ("own", "own")
    assert set(own.difference()) <= {"train_images", "test_images"}
    assert pascal == PROTOCOLS[name] and load_protocol(name, "coco").train_images == "train"
    assert load_protocol(name, "shapes", test_images="val").test_images == "val"


def test_classes_that_are_left_out_of_the_episodes_are_left_out_of_the_mean():
    assert not load_protocol("bam").leaves_absent_out and load_protocol("mlc").leaves_absent_out
    few = load_protocol("bam", small_classes="leave_out")
    assert few.leaves_absent_out and few.difference() == {
        "small_classes": ("error", "leave_out"),
        "absent_classes": ("zero", "left_out"),
    }
    assert load_protocol("bam", small_classes="error").difference() == {}
    assert load_protocol("bam", absent_classes="left_out").small_classes == "error"
    with pytest.raises(ConfigError, match="small_classes leave_out leaves classes without episodes"):
        load_protocol("bam", small_classes="leave_out", absent_classes="zero")


def test_an_unknown_protocol_lists_the_known_ones():
    with pytest.raises(ConfigError, match="protocol mine: known are bam, pfenet"):
        load_protocol("mine")


def test_a_label_in_a_square_needs_an_image_in_a_square():
    with pytest.raises(ConfigError, match="label_size square goes with resize letterbox or shrink"):
        load_protocol("hsnet", label_size="square")
    assert load_protocol("bam", resize="stretch", label_size="original").resize == "stretch"
    for resize in ("letterbox", "shrink"):
        assert load_protocol("hsnet", label_size="square", resize=resize).resize == resize
    for resize in ("stretch", "native"):
        with pytest.raises(ConfigError, match=f"not with {resize}; set label_size"):
            load_protocol("bam", resize=resize)


def test_what_training_settled_stays_when_another_protocol_tests():
    tested = load_protocol("hsnet").trained_under(load_protocol("bam"))
    assert (tested.name, tested.input_size, tested.novel_in_train) == ("hsnet", 400, "remove")
    assert set(tested.difference()) == {"novel_in_train", "train_images", "train_chain", "pretrained"}


def written(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def test_the_page_has_every_point_of_every_protocol():
    text = (Path(__file__).parents[3] / "docs/protocols.md").read_text(encoding="utf-8")
    first, second = re.findall(r"^\| point.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    points = [field.name for field in fields(Protocol) if field.name != "name"]
    rows = {}
    for data_set in ("pascal", "coco"):
        presets = [load_protocol(name, data_set) for name in PROTOCOLS]
        cells = {point: [written(getattr(preset, point)) for preset in presets] for point in points}
        rows[data_set] = [f"| `{point}` | {' | '.join(values)} |" for point, values in cells.items()]
    assert first.splitlines() == rows["pascal"]
    assert second.splitlines() == [row for row in rows["coco"] if row not in rows["pascal"]]
