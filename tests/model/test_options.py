"""Options of methods and backbones: what cannot be is refused in one line that names the option."""

from __future__ import annotations

import pytest

from fewseg.model import create_model
from fewseg.model.create import METHODS, create_backbone
from fewseg.model.options import OptionError

SMALL = {"backbone": "resnet18", "image_size": 65, "backbone_options": {"width": 8}}


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("bam", {"channels": 0}, "option 'channels' of bam must be at least 1, got 0"),
        ("bam", {"channels": 10**9}, "option 'channels' of bam must be at most 4096, got 1000000000"),
        ("bam", {"channels": True}, "option 'channels' of bam must be a whole number, got True"),
        ("bam", {"dropout": float("nan")}, "option 'dropout' of bam must be a finite number, got nan"),
        ("bam", {"dropout": -0.1}, "option 'dropout' of bam must be at least 0, got -0.1"),
        ("bam", {"shot_weights": True}, "must be 'learned' or 'uniform', got True"),
        ("bam", {"low_fea": "layer9"}, "there is no feature 'layer9'"),
        ("rpmm", {"components": [1, "three"]}, "must be a list of values each of which is a whole number"),
        ("rpmm", {"components": []}, "option 'components' of rpmm must be a list in brackets, got ()"),
        ("rpmm", {"components": [1] * 17}, "must be a list of at most 16 values"),
        ("panet", {"scale": 0.0}, "option 'scale' of panet must be at least 1e-06, got 0.0"),
        ("sgone", {"exit_padding": True}, "must be 0 or 1, got True"),
        ("bam", {"backbone": "resnet7"}, "there is no backbone 'resnet7'"),
    ],
)
def test_options_that_cannot_be(method: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        create_model(method, **{**SMALL, **options})
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.key.removeprefix("options.") in options


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet18", {"dilation": [1]}, "option 'dilation' of resnet18 must be a list of 4 values, got (1,)"),
        ("resnet18", {"last_stage": "layer9"}, "must be 'layer3' or 'layer4', got 'layer9'"),
        ("resnet18", {"stem": "shallow"}, "must be 'deep' or 'standard', got 'shallow'"),
        ("resnet18", {"width": -1}, "must be at least 1, got -1"),
        ("resnet18", {"depth": 34}, "resnet18 has no option 'depth'"),
        ("resnet18", {"widht": 8}, "resnet18 has no option 'widht'; did you mean 'width'?"),
        ("vgg16", {"stem": "deep"}, "vgg16 has no option 'stem'; known: batch_norm"),
        ("vgg16", {"pool_stride": [2, 2, 2, 2]}, "must be a list of 5 values"),
    ],
)
def test_backbone_options_that_cannot_be(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        create_backbone(name, **options)
    assert message in str(caught.value)
    assert caught.value.key == f"backbone_options.{next(iter(options))}"


def test_channels_of_the_image_are_not_for_the_user_to_say() -> None:
    with pytest.raises(OptionError, match="leave out inputs"):
        create_model("bam", **{**SMALL, "backbone_options": {"inputs": 5}})


def test_lists_become_tuples() -> None:
    model = create_model("pfenet", **SMALL, ppm_scales=[1.0, 0.5], channels=16)
    assert model.meta.options.ppm_scales == (1.0, 0.5)


@pytest.mark.parametrize("method", METHODS)
def test_no_number_is_without_bounds(method: str) -> None:
    """A new option states its range by a type of ``model.options``."""
    import typing

    hints = typing.get_type_hints(METHODS[method].Options, include_extras=True)
    assert [name for name, kind in hints.items() if kind in (int, float)] == []
