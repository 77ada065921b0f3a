"""Adaptation at test time, as a test run asks for it."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from fewseg.engine.evaluation.one_by_one import evaluate_one_by_one
from fewseg.engine.setup.build import build_adapter, build_network
from fewseg.engine.setup.data import test_episodes, test_fold_of
from fewseg.model import create_model
from fewseg.model.adapt.eftnet import EFTNetOptions
from fewseg.util.config.published import _ADAPTATION
from fewseg.util.errors import ConfigError


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


def test_every_option_can_be_reached_and_an_unknown_one_is_named(configure):
    values = {
        "momentum": 0.5,
        "weight_decay": 0.25,
        "q2s_empty": "none",
        "include_zero_round": True,
        "weighting": [0.5, 0.5],
    }
    options = {f"Test_Finetune.adapt_options.{key}": value for key, value in values.items()}
    config, model, *_ = opened(configure, adapt="eftnet", ft_power=0.5, **options)
    assert build_adapter(config, model).options == EFTNetOptions(
        rounds=2, power=0.5, **{**values, "weighting": (0.5, 0.5)}
    )
    wrong = r"--opts (\S+): Test_Finetune\.adapt_options\.{}: .*eftnet"
    for option, value in (("ronds", 3), ("rounds", 1000)):
        config = configure("bam", adapt="eftnet", **{f"Test_Finetune.adapt_options.{option}": value})
        with pytest.raises(ConfigError, match=wrong.format(option)):
            build_adapter(config, model)


def test_options_without_an_adaptation_are_told(configure, caplog):
    with caplog.at_level("INFO", logger="fewseg"):
        opened_config, model, *_ = opened(configure)
        build_adapter(opened_config, model)
    assert "Test_Finetune.adapt_options have no effect: adapt is not set" in caplog.text


def test_reduced_precision_is_refused(configure):
    config, model, *_ = opened(configure, adapt="eftnet", precision="bfloat16")
    with pytest.raises(ConfigError, match=r"--opts precision: Test_Finetune\.precision: bfloat16 .* float32"):
        build_adapter(config, model)


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
