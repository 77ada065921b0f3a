"""HDMNet against the recorded runs of the published implementation."""

import functools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fewseg.model import create_model
from fewseg.model.contract import Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.model.meta.hdmnet.matching import LEVELS
from tests.parity.cases import load_case
from tests.parity.comparison import assert_close, assert_gradients, episode_of, fill, without_dropout

EVALUATIONS = ["eval_1shot", "eval_1shot_merge", "eval_5shot"]
SHOT_WEIGHTS = {
    "kshot_rw.0.weight": [2, 5, 1, 1],
    "kshot_rw.0.bias": [2],
    "kshot_rw.2.weight": [5, 2, 1, 1],
    "kshot_rw.2.bias": [5],
}


def build(name: str) -> tuple[FewShotModel, object]:
    variant, case = load_case("hdmnet/resnet50", name)
    variant.manifest.setdefault("state_dict_5shot_extra", SHOT_WEIGHTS)  # known from the method's description
    model = create_model("hdmnet", shot=case.shot, image_size=97)
    fill(model, variant, case)
    return model, case


@functools.cache
def evaluated(name: str) -> tuple[FewShotModel, object, dict[str, Tensor], Prediction]:
    """Run once what several tests only look at, and note what the layers gave.

    The recorded similarities, scores and small logits are those of a second run whose support mask stood
    upside down (the small logits, enlarged, are not the recorded ``meta_out``); all else is of the first run.
    """
    model, case = build(name)
    noted: dict[str, Tensor] = {}
    meta = model.meta
    layers = {
        "down_query": meta.query_reduction,
        "down_supp": meta.support_reduction,
        "query_merge": meta.query_merge,
        "supp_merge": meta.support_merge,
        "meta_lowres": meta.transformer.classify,
        **{f"match{level}": layer for level, layer in enumerate(meta.transformer.join)},
        **{f"parse{level}": layer for level, layer in enumerate(meta.transformer.parse)},
    }
    hooks = [
        layer.register_forward_hook(lambda m, i, output, key=key: noted.__setitem__(key, output))
        for key, layer in layers.items()
    ]
    episode = episode_of(case)
    model.eval()
    with torch.no_grad():
        upside_down = model(replace(episode, support_mask=episode.support_mask.flip(-2)))
        late = {key: value for key, value in noted.items() if key == "meta_lowres"}
        late["similarity"] = upside_down.parts["similarity"]
        late |= {f"attention_weight_level{n}": upside_down.parts[f"score{n}"] for n in range(LEVELS)}
        prediction = model(episode)
        noted["query_cls512"] = model.query_features(episode.query)["base"]
        noted["base_lowres"] = model.encode_query(episode.query)["base"]
    for hook in hooks:
        hook.remove()
    return model, case, noted | late, prediction


@pytest.mark.parametrize("name", EVALUATIONS)
def test_outputs(name: str) -> None:
    _, case, _, prediction = evaluated(name)
    assert_close(prediction.logits, case.arrays["final_out"])
    assert_close(prediction.parts["meta"], case.arrays["meta_out"])
    assert_close(prediction.parts["base"][:, :, ::4, ::4], case.arrays["base_out_every4"])
    if name == "eval_1shot_merge":
        assert 0.05 < (prediction.logits.argmax(1) == 1).float().mean() < 0.95


@pytest.mark.parametrize("name", EVALUATIONS)
def test_intermediates(name: str) -> None:
    _, case, noted, _ = evaluated(name)
    compared = [key for key in case.arrays if not key.endswith(("_out", "every4"))]
    assert set(compared) <= set(noted)
    for key in compared:
        recorded = case.arrays[key]
        thinned = (
            noted[key] if noted[key].ndim == 3 else noted[key][:, :: noted[key].shape[1] // recorded.shape[1]]
        )
        assert_close(thinned, recorded)


def test_losses_and_gradients() -> None:
    model, case = build("train_1shot")
    without_dropout(model).train()
    episode = episode_of(case)
    prediction = model(episode)
    losses = model.losses(prediction, episode)
    sum(losses.values()).backward()
    for level in range(LEVELS):
        assert_close(prediction.parts[f"score{level}"], case.arrays[f"attention_weight_level{level}"])
    assert_close(prediction.parts["similarity"], case.arrays["similarity"])
    recorded = case.meta["train"]
    assert (losses["main"] + losses["meta"]).item() == pytest.approx(
        recorded["main_plus_meta_loss"], abs=1e-5
    )
    assert losses["distill"].item() == pytest.approx(recorded["distillation_loss"], abs=1e-5)
    assert losses["base"].item() == pytest.approx(recorded["base_loss"], abs=1e-5)
    assert sum(losses.values()).item() == pytest.approx(recorded["loss"], abs=2e-5)
    assert int((prediction.logits.argmax(1) == 1).sum()) == pytest.approx(
        recorded["pred_foreground_pixels"], abs=2
    )
    assert_gradients(model, recorded["grads"])
    trained = {id(p) for group in model.param_groups().values() for p in group}
    assert {id(p) for p in model.parameters() if p.grad is not None} == trained


def test_parameter_counts() -> None:
    model = create_model("hdmnet", shot=1)
    assert sum(p.numel() for group in model.param_groups().values() for p in group) == 4_161_734
    assert sum(p.numel() for p in model.parameters()) == 50_875_542
