"""A checkpoint that does not fit: counts, the first differences, and the likely cause."""

from __future__ import annotations

import pytest

from fewseg.model import create_base_learner, create_model
from fewseg.model.checkpoint.published import load_strict
from fewseg.model.fewshot import FewShotModel

OPTIONS = {"backbone": "resnet18", "image_size": 65, "channels": 16}


def network(**changes: object) -> FewShotModel:
    given = {**OPTIONS, **changes}
    width = given.pop("width", 8)
    return create_model("bam", backbone_options={"width": width, "stem": given.pop("stem", "deep")}, **given)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        (
            {"width": 16},
            "is 16 channels wide and this one 8: set Method.backbone_options.width 16",
        ),
        ({"stem": "standard"}, "set Method.backbone_options.stem deep or standard"),
        ({"backbone": "resnet50"}, ""),
        ({"base_classes": 12}, "another number of base classes"),
        ({"channels": 32}, "set Method.options as in the config.yaml of its training"),
    ],
)
def test_likely_cause(changes: dict[str, object], cause: str) -> None:
    with pytest.raises(ValueError, match="does not fit this network") as caught:
        load_strict(network(), network(**changes).state_dict())
    message = str(caught.value)
    assert cause in message and "\n" not in message
    assert len(message) < 700 and message.count(" instead of ") <= 3


def test_depth_of_a_base_learner() -> None:
    other = create_base_learner("pspnet", backbone="resnet101", classes=16, backbone_options={"width": 8})
    ours = create_base_learner("pspnet", backbone="resnet50", classes=16, backbone_options={"width": 8})
    with pytest.raises(ValueError, match="choose its own by --opts backbone NAME"):
        load_strict(ours, other.state_dict())


def test_names_of_others_keep_to_the_line() -> None:
    model = network()
    state = model.state_dict()
    with pytest.raises(ValueError, match=r"1 unexpected \('a\\nb'\)"):
        load_strict(model, {**state, "a\nb": next(iter(state.values()))})
