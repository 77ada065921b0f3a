"""Auxiliary images from the config to the result: which methods take them, and what they change."""

from __future__ import annotations

import pytest
import torch

from fewseg.dataset.loading.mined import FACTS, write_facts
from fewseg.engine.evaluation.encode_once import evaluate
from fewseg.engine.evaluation.one_by_one import evaluate_one_by_one, predict
from fewseg.engine.prediction.predict import Example, Segmenter
from fewseg.engine.setup.auxiliary import mined_labels_hash
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import fold_of, test_episodes, test_fold_of, training_data
from fewseg.util.checkpoint import file_hash
from fewseg.util.config import load_config
from fewseg.util.errors import ConfigError, DataError, UserError
from predict import build_segmenter
from tests.engine.evaluation.batches import force_batches
from tests.engine.evaluation.test_encode_once import count_calls

FSIL = {"arch": "fsil", "Method.options.threshold": -1.0, "Data.protocol_options.min_area": 60}


@pytest.fixture
def opened(config_file):
    """Return a function: changes of the config -> config, and the arguments of an evaluation."""

    def build(**changes):
        pairs = {**FSIL, **changes}
        config = load_config(config_file, [str(part) for pair in pairs.items() for part in pair])
        fold = test_fold_of(config)
        torch.manual_seed(0)
        model = build_network(config, fold.classes)
        return config, (model, test_episodes(config, fold))

    return build


def test_mined_labels_are_known_by_their_description(config_file, tmp_path):
    def hash_of(**changes):
        pairs = {
            "arch": "mlc-reconstruction",
            "auxiliary": 2,
            "mined_labels": tmp_path / "f{fold}",
            **changes,
        }
        return mined_labels_hash(
            load_config(config_file, [str(part) for pair in pairs.items() for part in pair])
        )

    write_facts(tmp_path / "f0", {"clusters": 3})
    write_facts(tmp_path / "f1", {"clusters": 4})
    assert hash_of() == file_hash(tmp_path / "f0" / FACTS) != hash_of(split=1)
    assert hash_of(auxiliary=0) is hash_of(arch="fsil") is None


def counts(scores):
    return [score.episodes["final"].tolist() for score in scores]


@pytest.mark.parametrize("changes", [{"auxiliary": 2}, {"auxiliary": 2, "ways": 2, "shot": 2}], ids=str)
def test_counts_equal_the_plain_loop(opened, changes, monkeypatch):
    _, arguments = opened(**changes)
    calls = count_calls(arguments[0], monkeypatch)
    once = counts(evaluate(*arguments))
    encoded = calls["encode_auxiliary"]
    assert once == counts(evaluate_one_by_one(*arguments))
    assert once != counts(evaluate(*opened(**{**changes, "auxiliary": 0})[1]))
    shown = {name for planned in arguments[1] for name, _ in planned.auxiliary}
    assert encoded == len(shown) > 0


def test_batches_and_memory_change_nothing(opened, monkeypatch):
    _, arguments = opened(auxiliary=2)
    once = counts(evaluate(*arguments))
    assert counts(evaluate(*arguments, cache_gib=1e-9)) == once
    force_batches(monkeypatch, 4)
    batched = evaluate(*arguments)[0].metrics()
    assert batched == pytest.approx(evaluate_one_by_one(*arguments)[0].metrics(), abs=1e-3)


def test_episodes_and_their_hash_are_those_without(opened):
    with_sets, without = (opened(auxiliary=count)[1][1].manifests for count in (2, 0))
    assert [manifest.hash for manifest in with_sets] == [manifest.hash for manifest in without]


@torch.no_grad()
def test_plain_loop_predicts_what_the_model_does(opened):
    _, (model, episodes) = opened(auxiliary=2, ways=2)
    episode = episodes.load(next(iter(episodes)))[0]
    assert episode.auxiliary.shape[:3] == (1, 2, 2)
    torch.testing.assert_close(
        predict(model.eval(), episode).logits, model(episode).logits, atol=1e-4, rtol=1e-4
    )


def test_images_of_unequal_size_are_evaluated(opened):
    _, arguments = opened(auxiliary=2, protocol="mlc")
    assert counts(evaluate(*arguments)) == counts(evaluate_one_by_one(*arguments))


def test_what_does_not_fit_is_one_line(opened, config_file, tmp_path):
    with pytest.raises(DataError, match=r"auxiliary 100: an episode needs 102 images"):
        opened(auxiliary=100)
    with pytest.raises(ConfigError, match=r"Data\.auxiliary: panet has no use for auxiliary images.*got 2"):
        load = load_config(config_file, ["arch", "panet", "auxiliary", "2"])
        training_data(load, fold_of(load), 0)
    mined = ["arch", "mlc-reconstruction", "auxiliary", "1"]
    with pytest.raises(ConfigError, match=r"Data\.mined_labels: unset; make mined labels by"):
        load = load_config(config_file, mined)
        training_data(load, fold_of(load), 0)
    with pytest.raises(DataError, match=r"split0_1: holds no mined labels"):
        load = load_config(config_file, [*mined, "mined_labels", f"{tmp_path}/split{{fold}}_{{shot}}"])
        training_data(load, fold_of(load), 0)


def test_going_without_the_set_is_said(opened, caplog):
    with caplog.at_level("WARNING"):
        opened(auxiliary=0)
    assert "fsil goes without its auxiliary set" in caplog.text


def test_prediction_takes_auxiliary_images(opened, config_file):
    _, (model, episodes) = opened(auxiliary=2)
    planned, store = next(iter(episodes)), episodes.store
    spec = planned.spec
    image, mask = store.named(spec.supports[0][0])
    example = Example(image, (mask == spec.class_ids[0]).astype("uint8"))
    further = [store.image(name) for name, _ in planned.auxiliary]
    segmenter = Segmenter(model, [example], episodes.fold.resize, further)
    assert segmenter._supports["auxiliary"].shape[:3] == (1, 1, 2)
    query = store.image(spec.query)
    assert segmenter(query).shape == query.shape[:2]
    with pytest.raises(UserError, match="--auxiliary: panet has no use for auxiliary images"):
        build_segmenter(load_config(config_file, ["arch", "panet"]), [example], further)
