"""Generalised few-shot segmentation: the recorded figures, and the loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fewseg.dataset.classes.fold import open_fold
from fewseg.dataset.episodes.manifest import Manifest
from fewseg.dataset.episodes.protocol import load_protocol
from fewseg.dataset.episodes.sampling import EpisodeSpec
from fewseg.engine.evaluation.encode_once import evaluate
from fewseg.engine.evaluation.generalized import MERGES, GeneralizedScores, measure_generalized
from fewseg.engine.evaluation.one_by_one import evaluate_one_by_one
from fewseg.engine.evaluation.outcome import counts_of
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import test_episodes, test_fold_of
from fewseg.engine.setup.weights import describe
from fewseg.model.contract import Prediction
from fewseg.util.checkpoint import save_checkpoint
from fewseg.util.errors import ConfigError
from fewseg.util.results.identity import file_name
from tests.parity import inputs
from tests.parity.cases import load_case

DEVICE = torch.device("cpu")


def opened(configure, **changes):
    config = configure("bam", **{"Test_Finetune.generalized": True, **changes})
    fold = test_fold_of(config)
    model = build_network(config, fold.classes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return config, fold, model


def test_every_image_is_asked_for_a_novel_class(configure):
    config, fold, _ = opened(configure)
    (first, _) = test_episodes(config, fold).manifests
    assert first.generalized and [spec.query for spec in first] == list(fold.val_images.names[:10])
    assert {spec.class_ids[0] for spec in first} <= set(fold.classes.novel)


def test_both_merges_equal_the_plain_loop_and_the_stored_counts(configure):
    config, fold, model = opened(configure)
    classifier = [module for module in model.base_head.modules() if isinstance(module, nn.Conv2d)][-1]
    with torch.no_grad():
        classifier.bias[3] += 10  # both learners claim every pixel, so that the merges differ
    arguments = model, test_episodes(config, fold)

    def make(fold, manifest):
        return GeneralizedScores(fold, manifest, 0.0)

    once, plain = evaluate(*arguments, scores_of=make), evaluate_one_by_one(*arguments, scores_of=make)
    assert [score.metrics() for score in once] == [score.metrics() for score in plain]
    found = {}
    for merge in MERGES:
        for score in once:
            score.choose(merge)
        metrics = [score.metrics() for score in once]
        assert list(metrics[0]) == ["mIoU_n", "mIoU_b", "mIoU_t", "FB-IoU"]
        counts = counts_of(once)
        for name in metrics[0]:
            assert counts.value(name) == pytest.approx(np.mean([m[name] for m in metrics]), abs=1e-12)
        assert len(once[0].class_iou()) == 20
        found[merge] = metrics
    assert found["final"] != found["base"]


@pytest.mark.parity
@pytest.mark.parametrize("tau", [0.9, 0.5])
def test_scores_equal_the_recorded_figures(tmp_path, tau):
    recorded = load_case("data", "iou_accounting")[1].meta
    fold = open_fold("pascal", tmp_path, 0, load_protocol("bam"))
    base, novel = fold.classes.base, fold.classes.novel
    made = [
        {key: inputs.make(recipe) for key, recipe in case.items() if isinstance(recipe, list)}
        | {"class_index": case["class_index"]}
        for case in recorded["episodes"]
    ]
    specs = tuple(EpisodeSpec("q", (novel[case["class_index"]],), (("s",),)) for case in made)
    scores = GeneralizedScores(fold, Manifest("pascal", 0, "bam", 0, 1, 1, "list", True, specs), tau)
    for number, case in enumerate(made):
        ids = np.array([0, *base, specs[number].class_ids[0], *[0] * 238, 255], np.uint8)
        label = fold.scored_label(ids[case["gfss_label"][0]])
        parts = {"base": torch.from_numpy(case["base_logits"])}
        scores.add(number, Prediction(torch.from_numpy(case["logits"]), parts), label)
    for merge in MERGES:
        scores.choose(merge)
        want = recorded["results"][f"gfss_{merge}_tau{tau}"]
        names = {"mIoU_n": "mIoU_novel", "mIoU_b": "mIoU_base", "mIoU_t": "mIoU_total", "FB-IoU": "FBIoU"}
        assert scores.metrics() == pytest.approx({ours: want[name] for ours, name in names.items()}, abs=1e-6)


def test_a_measurement_per_merge(configure, tmp_path):
    config, fold, model = opened(configure, **{"Test_Finetune.episodes": 4})
    save_checkpoint(tmp_path / "run" / "best.safetensors", model.state_dict(), describe(config, fold.classes))
    ((final, base),) = measure_generalized([config], DEVICE)
    assert [run.result.setting for run in (final, base)] == ["generalised-final", "generalised-base"]
    assert "_1shot_generalised-final_2x4_" in file_name(final.result)
    assert final.counts.first_novel == 16 and final.counts.classes == 21


def test_a_model_without_base_learner_cannot(configure, tmp_path):
    _, fold, _ = opened(configure)
    bare = configure("pfenet", **{"Test_Finetune.generalized": True, "Method.base": "none"})
    model = build_network(bare, fold.classes)
    save_checkpoint(tmp_path / "run" / "best.safetensors", model.state_dict(), describe(bare, fold.classes))
    with pytest.raises(ConfigError, match="pfenet has no base learner"):
        list(measure_generalized([bare], DEVICE))
    with pytest.raises(ConfigError, match="set ways 1"):
        list(measure_generalized([configure("pfenet", ways=2, **{"Method.base": "none"})], DEVICE))
