"""PFENet against the recorded runs of the published implementation."""

import functools

import pytest
import torch
from torch import Tensor

from fewseg.model import create_model
from fewseg.model.contract import Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.resize import resize
from tests.parity.cases import load_case
from tests.parity.comparison import (
    ABSOLUTE,
    assert_close,
    assert_gradients,
    assert_statistics,
    episode_of,
    fill,
    without_dropout,
)
from tests.parity.rounding import amplified

EVALUATIONS = [
    (f"pfenet/{backbone}", case)
    for backbone in ("resnet50", "vgg16")
    for case in ("eval_1shot", "eval_1shot_fractional_ppm", "eval_5shot")
]


def build(variant_name: str, case_name: str, **options: object) -> tuple[FewShotModel, object]:
    variant, case = load_case(variant_name, case_name)
    side = case.episode()["query"].shape[-1]
    model = create_model(
        "pfenet",
        backbone=variant_name.partition("/")[2],
        shot=case.shot,
        image_size=side,
        ppm_scales=case.meta["ppm_scales"],
        **options,
    )
    fill(model, variant, case)
    return model, case


@functools.cache
def evaluated(variant_name: str, case_name: str) -> tuple[Prediction, dict[str, Tensor], object]:
    """Run a case once: the prediction, the backbone's and encoders' features, the case."""
    model, case = build(variant_name, case_name)
    seen = run_and_watch(model.eval(), case)
    return (*seen, case)


def run_and_watch(model: FewShotModel, case: object) -> tuple[Prediction, dict[str, Tensor]]:
    """Run the case and keep what passes by inside, under the names of the record."""
    seen: dict[str, Tensor] = {}

    def keep_prior(name: str, inputs: tuple[Tensor]) -> None:
        seen[name] = inputs[0][:, -1:].detach()

    def keep_output(name: str, output: Tensor) -> None:
        seen[name] = output.detach().clone()

    hooks = [
        merge.register_forward_pre_hook(
            lambda module, inputs, name=f"prior_bin{level}": keep_prior(name, inputs)
        )
        for level, merge in enumerate(model.meta.decoder.merge)
    ]
    watched = {
        "down_query": model.meta.query_reduction,
        "down_supp0": model.meta.support_reduction,
        "res2": model.meta.decoder.refine[-1],  # recorded before the shortcut is added
        "cls": model.meta.decoder.classify,
    }
    hooks += [
        module.register_forward_hook(lambda module, inputs, output, name=name: keep_output(name, output))
        for name, module in watched.items()
    ]
    episode = episode_of(case)
    with torch.set_grad_enabled(model.training):
        prediction = model(episode)
    for hook in hooks:
        hook.remove()
    return prediction, seen


def assert_intermediates(
    prediction: Prediction, seen: dict[str, Tensor], case: object, absolute: float = ABSOLUTE
) -> None:
    arrays = case.arrays
    assert_close(prediction.parts["prototype"], arrays["prototype"], absolute=1e-4)
    for level in range(4):
        assert_close(seen[f"prior_bin{level}"], arrays[f"prior_bin{level}"], absolute=1e-4)
        assert_close(prediction.parts[f"inner{level}"], arrays[f"inner_logits{level}"], absolute)
    assert_close(seen["down_query"][:, ::16], arrays["down_query"], absolute)
    assert_close(seen["down_supp0"][:: case.shot, ::16], arrays["down_supp0"], absolute)
    assert_close(seen["res2"][:, ::16], arrays["res2"], absolute)
    assert_close(seen["cls"], arrays["cls"], absolute)


@pytest.mark.parametrize(("variant", "name"), EVALUATIONS)
def test_outputs_and_intermediates(variant: str, name: str) -> None:
    prediction, seen, case = evaluated(variant, name)
    assert_close(prediction.logits, case.arrays["logits"])
    assert_intermediates(prediction, seen, case)


@pytest.mark.parametrize("variant", ["pfenet/resnet50", "pfenet/vgg16"])
def test_backbone_features(variant: str) -> None:
    model, case = build(variant, "eval_1shot")
    model.eval()
    episode = episode_of(case)
    with torch.no_grad():
        query = model.query_features(episode.query)
        support = model.support_features(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
    compared = {f"query_{stage}": query[stage] for stage in ("layer2", "layer3", "layer4")}
    compared["supp0_layer4_of_masked_layer3"] = support["layer4"]
    for name, feature in compared.items():
        recorded = case.arrays[name]
        feature = resize(feature, recorded.shape[-2:])  # VGG16's layer2, to the grid of layer3
        assert_close(feature[:, :: feature.shape[1] // recorded.shape[1]], recorded)


@pytest.mark.parametrize("variant", ["pfenet/resnet50", "pfenet/vgg16"])
@amplified
def test_losses_gradients_and_statistics(variant: str) -> None:
    model, case = build(variant, "train_1shot", fix_bn=False)
    without_dropout(model).train()
    episode = episode_of(case)
    prediction, seen = run_and_watch(model, case)
    assert_intermediates(prediction, seen, case, absolute=1e-4)
    losses = model.losses(prediction, episode)
    sum(losses.values()).backward()
    recorded = case.meta["train"]
    assert_close(losses["main"], recorded["main_loss"], 1e-5, 0)
    assert_close(losses["inner"], recorded["aux_loss"], 1e-5, 0)
    assert_gradients(model, recorded["grads"])
    assert (prediction.logits.argmax(1) == 1).sum().item() == pytest.approx(
        recorded["pred_foreground_pixels"], abs=5
    )
    assert_statistics(model, recorded["buffers_after_step"])
    assert len(recorded["grads"]) == sum(len(group) for group in model.param_groups().values())


def test_parameter_counts() -> None:
    model = create_model("pfenet", backbone="resnet50")
    assert sum(p.numel() for g in model.param_groups().values() for p in g) == 10_817_034
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 10_817_034
    assert sum(p.numel() for p in model.parameters()) == 34_448_842
    assert list(model.param_groups())[:3] == ["query_reduction", "support_reduction", "merge"]
