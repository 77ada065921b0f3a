"""Classes that a training on another data set has seen, by their names."""

from __future__ import annotations

import pytest

from fewseg.dataset.classes.namesakes import fold_of_other_data, namesakes, plain_name, unseen_classes
from fewseg.dataset.classes.split import ClassSplit, class_split
from fewseg.util.errors import DataError

WORDS = ("pascal", "coco fold 0")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(("aeroplane", "airplane"), ("diningtable", "dining table"), ("motorbike", "motorcycle")),
        *(
            ("pottedplant", "potted plant"),
            ("sofa", "couch"),
            ("tvmonitor", "tv"),
            ("Stop_Sign", "stop sign"),
        ),
    ],
)
def test_names_of_the_same_class(one: str, other: str) -> None:
    assert plain_name(one) == plain_name(other)


def test_names_that_only_begin_alike_differ() -> None:
    assert len({plain_name(name) for name in ("car", "carrot", "cat", "train", "traffic light")}) == 5


# The folds of COCO to PASCAL by hand: the PASCAL classes whose namesakes a fold of COCO-20i holds out.
EVERY_FOURTH = [
    "aeroplane boat chair diningtable dog person",
    "bicycle bus horse sofa",
    "bird car pottedplant sheep train tvmonitor",
    "bottle cat cow motorbike",
]
CONSECUTIVE = [
    "aeroplane bicycle bird boat bus car cat cow dog horse motorbike person sheep train",
    "bottle",
    "chair pottedplant sofa",
    "diningtable tvmonitor",
]


@pytest.mark.parametrize(("interleaved", "expected"), [(True, EVERY_FOURTH), (False, CONSECUTIVE)])
def test_coco_to_pascal(interleaved: bool, expected: list[str]) -> None:
    for fold, names in enumerate(expected):
        trained = class_split("coco", fold, interleaved=interleaved)
        tested = unseen_classes(class_split("pascal", 2), trained, *WORDS)
        assert [tested.names[class_id] for class_id in tested.novel] == names.split()
        assert tested.base == ()


def test_every_pascal_class_has_a_namesake_in_coco() -> None:
    every = ClassSplit(tuple(range(1, 21)), (), class_split("pascal", 0).names)
    trained = ClassSplit((), tuple(range(1, 81)), class_split("coco", 0).names)
    assert namesakes(every, trained) == every.novel
    with pytest.raises(
        DataError, match=r"^pascal: the training on coco fold 0 has seen all 20 classes; name"
    ):
        unseen_classes(every, trained, *WORDS)


def test_a_named_fold_is_tested_whole_with_a_warning_about_classes_that_are_not_new() -> None:
    trained = class_split("coco", 1, interleaved=True)  # holds out bicycle and bus
    with pytest.warns(UserWarning, match=r"has seen aeroplane, bird, boat, bottle, which the test treats"):
        tested = fold_of_other_data(class_split("pascal", 0), trained, *WORDS)
    assert tested.novel == (1, 2, 3, 4, 5) and tested.base == ()


def test_no_warning_without_namesakes(recwarn: pytest.WarningsRecorder) -> None:
    tested = fold_of_other_data(class_split("pascal", 0), class_split("shapes", 0), *WORDS)
    assert tested.novel == (1, 2, 3, 4, 5) and not recwarn
