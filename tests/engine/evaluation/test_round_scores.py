"""The scores of every round of an adaptation: counted, kept, joined, written and shown."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from fewseg.engine.evaluation.generalized import MERGES, measure_generalized
from fewseg.engine.evaluation.measure import measure
from fewseg.engine.evaluation.one_by_one import evaluate_one_by_one
from fewseg.engine.evaluation.round_scores import CHOSEN, RoundScores
from fewseg.engine.evaluation.scores import Scores
from fewseg.engine.setup.build import build_adapter
from fewseg.engine.setup.weights import describe
from fewseg.util.checkpoint import save_checkpoint
from fewseg.util.errors import ConfigError
from tests.engine.evaluation.test_encode_once import opened as undecided

ROUNDS = 2
ADAPTED = {"adapt": "eftnet", "ft_number": ROUNDS, "ft_base_lr": 0.05, "episodes": 4, "seeds": "[1, 2]"}
DEVICE = torch.device("cpu")


@pytest.fixture
def opened(configure, tmp_path):
    """Return a function that builds a model that is not sure of anything, with its config and checkpoint."""

    def build(**changes):
        config = configure("bam", **{**ADAPTED, **changes})
        torch.manual_seed(0)
        model, episodes = undecided(configure, **{**ADAPTED, **changes})
        fold = episodes.fold
        weight = tmp_path / "run" / "best.safetensors"
        save_checkpoint(weight, model.state_dict(), describe(config, fold.classes))
        return config, model, episodes

    return build


def evaluated(config, model, episodes):
    seen = []
    scores = evaluate_one_by_one(
        *(model, episodes),
        adapter=build_adapter(config, model),
        observe=lambda planned, prediction: seen.append(prediction),
        scores_of=partial(RoundScores, rounds=ROUNDS),
    )
    return scores, seen


def test_every_round_is_counted_as_if_it_had_been_returned(opened, configure):
    config, model, episodes = opened()
    scores, seen = evaluated(config, model, episodes)
    numbers = [prediction.parts["round"].item() for prediction in seen]
    flat = {
        part: torch.cat([score.episodes[part] for score in scores])
        for part in ("final", *(f"round {number}" for number in range(ROUNDS + 1)))
    }
    for index, number in enumerate(numbers):
        assert torch.equal(flat["final"][index], flat[f"round {number}"][index])
    assert len({str(flat[f"round {number}"].tolist()) for number in range(ROUNDS + 1)}) == ROUNDS + 1
    for score in scores:
        chosen = [of_round.chosen for of_round in score.by_round()]
        assert sum(chosen) == 4 and len(chosen) == ROUNDS + 1
    rounds = [score.by_round() for score in scores]
    assert [sum(seed[n].chosen for seed in rounds) for n in range(ROUNDS + 1)] == [
        numbers.count(number) for number in range(ROUNDS + 1)
    ]
    fixed = configure("bam", **ADAPTED, **{"Test_Finetune.adapt_options.choice": 1})
    returned = [score.metrics()["mIoU"] for score in evaluated(fixed, model, episodes)[0]]
    assert [seed[1].metrics["mIoU"] for seed in rounds] == returned  # of a test that returns this round


def test_counts_of_parts_of_a_test_are_joined(opened):
    (whole, *_), _ = evaluated(*opened(seeds="[1]"))
    halves = []
    for indices in ([0, 2], [1, 3]):
        half = RoundScores(whole.fold, whole.manifest, ROUNDS)
        half.restore(whole.state())
        for index in {0, 1, 2, 3} - {*indices}:
            half.forget(index)
        halves.append(half)
    assert halves[0].episodes[CHOSEN].sum() == 2
    joined = RoundScores(whole.fold, whole.manifest, ROUNDS)
    for half in halves:
        joined.restore(half.state())
    assert joined.done.all() and joined.by_round() == whole.by_round()
    without = Scores(whole.fold, whole.manifest)
    with pytest.raises(KeyError):  # such as those of an earlier version
        joined.restore(without.state())


def test_a_result_holds_its_rounds(opened):
    config, *_ = opened()
    ((measured,),) = measure([config], DEVICE)
    result = measured.result
    assert [len(seed.rounds) for seed in result.seeds] == [ROUNDS + 1] * 2
    assert sum(of_round.chosen for of_round in result.rounds) == 8
    stored = json.loads(result.model_dump_json())
    assert set(stored["seeds"][0]["rounds"][1]["metrics"]) == {"mIoU", "FB-IoU", "pIoU"}
    assert all(not seed.rounds for baseline in measured.baselines for seed in baseline.seeds)


def test_generalised_test_is_adapted_and_says_so(opened):
    config, *_ = opened(**{"Test_Finetune.generalized": True, "seeds": "[1]", "merge_tau": 0.5})
    ((final, base),) = measure_generalized([config], DEVICE)
    assert [run.result.method for run in (final, base)] == ["bam + eftnet"] * 2
    assert [run.result.setting for run in (final, base)] == [f"generalised-{merge}" for merge in MERGES]
    plain = config.with_values(Test_Finetune={"adapt": None, "adapt_options": {}})
    ((unadapted, _),) = measure_generalized([plain], DEVICE)
    assert unadapted.result.method == "bam"
    assert (final.counts.counts != unadapted.counts.counts).any()
    named = config.with_values(Test_Finetune={"adapt_options": {"choice": 0, "rounds": 1}})
    ((zero, _),) = measure_generalized([named], DEVICE)
    assert zero.result.mean == pytest.approx(unadapted.result.mean, abs=1e-3)


def test_generalised_test_refuses_what_cannot_be_adapted(opened):
    config = opened(**{"Test_Finetune.generalized": True})[0].with_values(Data={"ways": 2})
    with pytest.raises(ConfigError, match="set ways 1"):
        list(measure_generalized([config], DEVICE))
