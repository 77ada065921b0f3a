"""PSPNet against the recorded runs of BAM's stage 1."""

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from fewseg.model import create_base_learner
from fewseg.model.checkpoint.published import published_names
from fewseg.model.contract import BaseLearner
from tests.parity import inputs
from tests.parity.cases import load_case
from tests.parity.comparison import agreement, assert_close, assert_gradients, fill, without_dropout
from tests.parity.rounding import amplified, precise


def build(backbone: str, case_name: str) -> tuple[BaseLearner, object]:
    variant, case = load_case(f"pspnet/{backbone}", case_name)
    network = create_base_learner("pspnet", backbone=backbone, classes=16)
    fill(network, variant, case)
    return network, case


def make(case: object, name: str) -> torch.Tensor:
    return precise(inputs.make(case.meta["inputs"][name]))


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16"])
@pytest.mark.parametrize("case_name", ["eval", "eval_rect"])
def test_outputs(backbone: str, case_name: str) -> None:
    network, case = build(backbone, case_name)
    network.eval()
    image = make(case, "image")
    with torch.no_grad():
        features = network.backbone(image, network.backbone.stages)
        low = network.head(features["layer4"])
        logits = network(image)
    for stage in network.backbone.stages:
        step = features[stage].shape[1] // case.arrays[stage].shape[1]
        assert_close(features[stage][:, ::step], case.arrays[stage])
    pooled = network.head.ppm(features["layer4"])
    assert_close(pooled[:, :: pooled.shape[1] // case.arrays["ppm"].shape[1]], case.arrays["ppm"])
    assert_close(low, case.arrays["logits_low"])
    assert logits.shape[-2:] == image.shape[-2:]
    assert_close(logits[:, :, ::2, ::2], case.arrays["logits"])


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16"])
@pytest.mark.parametrize(("case_name", "relative"), [("train_bn_eval", 2e-3), ("train", 3e-2)])
@amplified
def test_loss_and_gradients(backbone: str, case_name: str, relative: float) -> None:
    network, case = build(backbone, case_name)
    without_dropout(network).train()
    if case_name == "train_bn_eval":
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
    recorded = dict(case.meta["train"]["grads"])
    if (backbone, case_name) == ("vgg16", "train"):  # their true gradient is zero: BatchNorm removes the bias
        recorded = {k: v for k, v in recorded.items() if k.startswith("cls.4") or not _normalised_bias(k)}
    logits = network(make(case, "image"))
    loss = network.losses(logits, make(case, "label"))["main"]
    loss.backward()
    assert_close(loss, case.meta["train"]["main_loss"], 1e-5 if relative < 1e-2 else 1e-4, 0)
    assert_gradients(network, recorded, relative)
    assert agreement(logits.argmax(1)[:, ::2, ::2], case.arrays["prediction"]) > 0.999


@pytest.mark.parametrize("backbone", ["resnet50", "vgg16"])
def test_running_statistics_move_as_recorded(backbone: str) -> None:
    network, case = build(backbone, "train")
    without_dropout(network).train()
    network(make(case, "image"))
    recorded = case.meta["train"]["buffers_after_one_forward"]
    state = {published: network.state_dict()[name] for name, published in published_names(network).items()}
    assert len(recorded) > 20
    for name, (norm, total) in recorded.items():
        assert float(state[name].norm()) == pytest.approx(norm, rel=1e-4), name
        assert float(state[name].sum()) == pytest.approx(total, rel=1e-3, abs=1e-3 * norm), name


def _normalised_bias(name: str) -> bool:
    return name.endswith(".bias") and name.startswith("layer")
