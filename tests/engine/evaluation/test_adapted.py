"""Adaptation at test time, as a test run asks for it."""

from __future__ import annotations

import warnings
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
import torch

from fewseg.engine.evaluation.one_by_one import evaluate_one_by_one
from fewseg.engine.evaluation.outcome import variant_of
from fewseg.engine.setup.build import build_adapter, build_network
from fewseg.engine.setup.data import test_episodes, test_fold_of
from fewseg.model import create_model
from fewseg.model.adapt.eftnet import EFTNetOptions
from fewseg.model.fewshot import FewShotModel
from fewseg.util.config import load_config
from fewseg.util.config.published import _ADAPTATION
from fewseg.util.errors import ConfigError
from train import without_adaptation

ROOT = Path(__file__).resolve().parents[3]


def opened(configure, arch="bam", **changes):
    config = configure(arch, episodes=3, seeds="[1]", ft_number=2, **changes)
    fold = test_fold_of(config)
    model = build_network(config, fold.classes).eval()
    return config, model, test_episodes(config, fold)


def test_no_adapter_unless_asked_for(configure):
    config, model, *_ = opened(configure)
    assert build_adapter(config, model) is None


def test_adapter_segments_and_leaves_the_model_as_it_was(configure):
    config, model, episodes = opened(configure, adapt="eftnet", ft_base_lr=0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapter = build_adapter(config, model)
    (adapted,) = evaluate_one_by_one(model, episodes, adapter=adapter)
    assert adapted.episodes["final"].sum() > 0
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_published_choice_of_the_round_is_marked_as_an_oracle(configure):
    config, model, episodes = opened(configure, adapt="eftnet", discrimination_mask="ground_truth")
    with pytest.warns(UserWarning, match="ground truth"):
        adapter = build_adapter(config, model)
    assert adapter.oracle
    evaluate_one_by_one(model, episodes, adapter=adapter)


def test_published_defaults_are_those_of_the_options():
    defaults = {field.name: field.default for field in fields(EFTNetOptions)}
    for option, default in _ADAPTATION.values():
        assert default == (list(defaults[option]) if isinstance(default, list) else defaults[option])


OPTIONS = {
    "rounds": 3,
    "lr": 0,
    "power": 0.5,
    "weighting": (0.5, 0.5),
    "q2s_filt_para": 0.3,
    "sr_aux_weight1": 0.9,
    "momentum": 0.5,
    "weight_decay": 0.25,
    "discrimination_mask": "ground_truth",
    "q2s_empty": "none",
    "include_zero_round": True,
    "choice": 3,
    "learn_from": "supports",
}
"""A value of every option that is not its default."""


def reached(configure, key: str, option: str) -> object:
    """Return an option of the adaptation when its other value is given by ``key``."""
    value = OPTIONS[option]
    config = configure("bam", adapt="eftnet", **{key: list(value) if isinstance(value, tuple) else value})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the oracle's
        return getattr(build_adapter(config, network()).options, option)


@cache
def network() -> FewShotModel:
    return create_model("bam", backbone="resnet18", backbone_options={"width": 8}, channels=16)


def test_every_option_can_be_reached_by_its_name_and_its_published_key(configure):
    defaults = {field.name: field.default for field in fields(EFTNetOptions)}
    assert OPTIONS.keys() == defaults.keys()
    for option, value in OPTIONS.items():
        assert (
            reached(configure, f"Test_Finetune.adapt_options.{option}", option) == value != defaults[option]
        )
    for key, (option, _) in _ADAPTATION.items():
        assert reached(configure, key, option) == OPTIONS[option]


@pytest.mark.parametrize(
    ("option", "value"), [("ronds", 3), ("rounds", 1000), ("choice", 6), ("choice", "best"), ("lr", -1)]
)
def test_a_wrong_option_is_named(configure, option, value):
    config = configure("bam", adapt="eftnet", **{f"Test_Finetune.adapt_options.{option}": value})
    with pytest.raises(
        ConfigError, match=rf"--opts (\S+): Test_Finetune\.adapt_options\.{option}: .*'{option}'"
    ):
        build_adapter(config, network())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ways": 2}, r"--opts ways: Data\.ways: 2 ways .* eftnet.*; set ways 1"),
        ({"test_protocol": "mlc"}, r"--opts test_protocol: .*mlc tests images at their own size.*letterbox"),
        (
            {"query_scales": "[1.0, 1.3]"},
            r"--opts query_scales: .* several scales cannot be combined",
        ),
        ({"precision": "bfloat16"}, r"--opts precision: Test_Finetune\.precision: bfloat16 .* float32"),
    ],
)
def test_tests_that_cannot_be_adapted_are_refused(configure, changes, message):
    with pytest.raises(ConfigError, match=message):
        build_adapter(configure("bam", adapt="eftnet", **changes), network())


def test_names_tell_the_options_that_are_not_the_shipped_ones():
    def variant(name: str, *opts: str) -> str | None:
        return variant_of(load_config(ROOT / f"config/pascal/{name}_resnet50.yaml", opts))

    assert variant("eftnet") is None and variant("eftnet", "ft_number", "5") is None
    assert variant("msanet", "adapt", "eftnet", "sr_aux_weight1", "0.9") is None  # the same settings
    assert variant("msanet", "adapt", "eftnet").startswith("sr_aux_weight11_")
    assert variant("bam", "adapt", "eftnet") is None  # as shipped for no other method
    assert variant("eftnet", "ft_number", "3", "change_weighting", "[0.5, 0.5]").startswith(
        "rounds3-weighting0.5x0.5_"
    )
    assert variant("msanet", "ft_number", "3").startswith("rounds3_")


def test_training_by_the_config_of_an_adaptation_is_that_of_the_method(caplog):
    config = load_config(ROOT / "config/shapes/eftnet_resnet18.yaml")
    with caplog.at_level("INFO", logger="fewseg"):
        trained = without_adaptation(config)
    assert "adapt: eftnet changes tests only; msanet itself is trained" in caplog.text
    assert trained.as_dict() == load_config(ROOT / "config/shapes/msanet_resnet18.yaml").as_dict()
    assert without_adaptation(trained) is trained


def test_options_without_an_adaptation_are_told(configure, caplog):
    with caplog.at_level("INFO", logger="fewseg"):
        opened_config, model, *_ = opened(configure)
        build_adapter(opened_config, model)
    assert "Test_Finetune.adapt_options have no effect: adapt is not set" in caplog.text


def test_truth_is_shown_at_the_size_of_the_input(configure):
    *_, episodes = opened(configure)
    planned = next(iter(episodes))
    assert episodes.load(planned)[0].query_mask is None
    episode = episodes.load(planned, with_truth=True)[0]
    assert episode.query_mask.shape == (1, 65, 65)
    assert set(episode.query_mask.unique().tolist()) <= {0, 1, 255}
    assert (episode.query_mask == 1).any()


def test_method_that_cannot_be_adapted_is_named(configure):
    model = create_model("hsnet", backbone="resnet18", backbone_options={"width": 8})
    with pytest.raises(ConfigError, match=r"--opts adapt: Test_Finetune\.adapt: .*HSNet"):
        build_adapter(configure("bam", adapt="eftnet"), model)
