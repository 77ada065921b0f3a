"""HSNet against the recorded runs of the published implementation."""

import functools

import pytest
import torch
from torch import Tensor

from fewseg.model import create_model
from fewseg.model.contract import Encoding, Episode, Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.model.meta.hsnet.hypercorrelation import hypercorrelation
from tests.parity.cases import load_case
from tests.parity.comparison import (
    agreement,
    assert_close,
    assert_gradients,
    assert_main_loss,
    episode_of,
    fill,
)

BACKBONES = ["resnet50", "vgg16"]
EVALUATIONS = [(backbone, name) for backbone in BACKBONES for name in ("eval_1shot", "eval_5shot")]
LEVELS = ("layer4", "layer3", "layer2")


def build(backbone: str, name: str) -> tuple[FewShotModel, object]:
    variant, case = load_case(f"hsnet/{backbone}", name)
    shapes = variant.manifest["state_dict"]  # ImageNet's classifier is in the files, large, and of no use
    shapes |= {key: [1] for key in shapes if key.startswith("backbone.classifier.")}
    model = create_model("hsnet", backbone=backbone, shot=case.shot, image_size=257)
    fill(model, variant, case)
    return model, case


@functools.cache
def evaluated(
    backbone: str, name: str
) -> tuple[FewShotModel, object, Episode, Encoding, Encoding, Prediction]:
    """Run once what several tests only look at; the support is the first."""
    model, case = build(backbone, name)
    episode = episode_of(case)
    model.eval()
    with torch.no_grad():
        prediction = model(episode)
        query = model.encode_query(episode.query)
        support = model.encode_support(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
    return model, case, episode, query, support, prediction


def query_first(x: Tensor) -> Tensor:
    """[B,hs,ws,C,hq,wq] -> [B,C,hq,wq,hs,ws], as recorded."""
    return x.permute(0, 3, 4, 5, 1, 2)


@pytest.mark.parametrize(("backbone", "name"), EVALUATIONS)
def test_outputs(backbone: str, name: str) -> None:
    model, case, episode, _, _, prediction = evaluated(backbone, name)
    logits = prediction.parts["shot_logits"]
    assert logits.shape[1] == case.shot
    first = Prediction(logits[:, 0], {"shot_logits": logits[:, :1]})
    assert_close(model.meta.upsample(first, tuple(episode.query.shape[-2:])), case.arrays["logits_shot0"])
    assert agreement(prediction.logits.argmax(1), case.arrays["prediction"]) > 0.9999
    assert 0.1 < prediction.logits.argmax(1).double().mean() < 0.9


@pytest.mark.parametrize(("backbone", "name"), EVALUATIONS)
def test_correlations(backbone: str, name: str) -> None:
    _, case, _, query, support, _ = evaluated(backbone, name)
    for index, level in enumerate(LEVELS):
        x = query_first(
            hypercorrelation(query[f"level{index}"], support[f"object{index}"], support[f"occupied{index}"])
        )
        assert_close(x.mean((4, 5)), case.arrays[f"corr_{level}_query_mean"])
        assert_close(x.mean((2, 3)), case.arrays[f"corr_{level}_support_mean"])


@pytest.mark.parametrize(("backbone", "name"), EVALUATIONS)
def test_squeezed(backbone: str, name: str) -> None:
    model, case, _, query, support, _ = evaluated(backbone, name)
    recorded = {}
    blocks = {f"encoder_{level}": block for level, block in zip(LEVELS, model.meta.squeeze, strict=True)}
    blocks |= dict(zip(("encoder_layer4to3", "encoder_layer3to2"), model.meta.mix, strict=True))
    blocks |= {"decoder1": model.meta.decode_coarse, "decoder2": model.meta.decode_fine}
    hooks = [
        block[-1].register_forward_hook(lambda m, i, output, key=key: recorded.__setitem__(key, output))
        for key, block in blocks.items()
    ]
    with torch.no_grad():
        support = {name: tensor.unsqueeze(1) for name, tensor in support.items()}
        model.meta.segment(query, model.meta.match(query, support))
    for hook in hooks:
        hook.remove()
    assert len(recorded) == 7
    for key, value in recorded.items():
        value = query_first(value) if value.ndim == 6 else value
        step = value.shape[1] // case.arrays[key].shape[1]
        assert_close(value[:, ::step], case.arrays[key])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_loss_and_gradients(backbone: str) -> None:
    model, case = build(backbone, "train_1shot")
    prediction = assert_main_loss(model, case)
    assert_gradients(model, case.meta["train"]["grads"])
    trained = {id(p) for group in model.param_groups().values() for p in group}
    assert {id(p) for p in model.parameters() if p.grad is not None} == trained
    assert_close(prediction.logits, case.arrays["logits_shot0"])


@pytest.mark.parametrize(("backbone", "trainable"), [("resnet50", 2_573_794), ("vgg16", 2_570_018)])
def test_parameter_counts(backbone: str, trainable: int) -> None:
    model = create_model("hsnet", backbone=backbone)
    assert sum(p.numel() for group in model.param_groups().values() for p in group) == trainable
