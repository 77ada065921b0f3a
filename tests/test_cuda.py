"""Every method on a real GPU: as on the CPU, in bfloat16, in channels-last, and compiled.

``pytest -m cuda`` runs these tests; without a GPU they are skipped. Steps and adaptations are compared in
float64, where the rounding of other kernels stays below 1e-6, evaluations in float32 without TF32, where one
pixel in a thousand may fall on the other side of a threshold.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from fewseg.engine.evaluation.encode_once import evaluate
from fewseg.engine.training.optimisation import create_optimizer
from fewseg.engine.training.parallel import Wrapped, allow_tf32
from fewseg.engine.training.step import training_step
from fewseg.model import create_adapter, list_models
from fewseg.model.contract import Episode
from fewseg.model.create import METHODS
from fewseg.model.fewshot import FewShotModel
from tests.methods_on_gpu import shapes_episodes
from tests.model.small_models import RECIPES, four_episodes, part_of, small_model

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)
IN_FLOAT64 = {"rtol": 1e-6, "atol": 1e-8}
OTHER_PIXELS = 1e-3
"""Share of pixels that a float32 evaluation may label otherwise."""

ADAPTABLE = [name for name in list_models() if METHODS[name].adaptation]


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    allowed = torch.backends.cudnn.allow_tf32
    allow_tf32(False)
    yield
    allow_tf32(allowed)


class DrawnOnTheCpu(TorchFunctionMode):
    """Random draws that are the same for every device: they are made on the CPU, then moved."""

    _DRAWS = {torch.rand, torch.randn, torch.randint, torch.randperm}

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func not in self._DRAWS:
            return func(*args, **kwargs)
        device = kwargs.pop("device", None)
        return func(*args, **{**kwargs, "generator": self._generator}).to(device)


def batch_of(method: str) -> Episode:
    return part_of(four_episodes(), 0, min(RECIPES[method].batch, 2))


def in_training(method: str) -> FewShotModel:
    """Build a model whose training draws nothing but by the functions of ``DrawnOnTheCpu``."""
    model = small_model(method).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.eval()
    return model


def in_float64(episode: Episode) -> Episode:
    changed = {
        name: value.double() if value.is_floating_point() else value
        for name, value in vars(episode).items()
        if value is not None
    }
    return Episode(**changed)


def step_on(device: torch.device, model: FewShotModel, batch: Episode) -> dict[str, torch.Tensor]:
    """Take a step on a copy of the model; return its losses, gradients and new weights, on the CPU."""
    model = copy.deepcopy(model).to(device)
    optimizer = create_optimizer(model.param_groups(), "sgd", lr=0.01, rules=model.group_rules)
    with DrawnOnTheCpu():
        losses = training_step(model, batch.to(device), optimizer, generator=torch.Generator(device))
    found = {f"loss {name}": torch.as_tensor(value) for name, value in losses.items()}
    for name, parameter in model.named_parameters():
        found[name] = parameter.detach()
        if parameter.grad is not None:
            found[f"gradient of {name}"] = parameter.grad
    return {name: value.cpu() for name, value in found.items()}


@pytest.mark.parametrize("method", list_models())
def test_a_training_step_equals_that_of_the_cpu(method):
    model, batch = in_training(method).double(), in_float64(batch_of(method))
    expected, found = (step_on(device, model, batch) for device in (CPU, GPU))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, **IN_FLOAT64, msg=lambda text, of=name: f"{of}: {text}"
        )


@pytest.mark.parametrize("method", list_models())
def test_an_evaluation_equals_that_of_the_cpu(method):
    model, episodes = small_model(method).eval(), shapes_episodes()
    expected, found = (
        evaluate(copy.deepcopy(model).to(device), episodes)[0].episodes["final"] for device in (CPU, GPU)
    )
    pixels = expected[..., 2].sum()
    assert (found - expected).abs().sum() <= 4 * OTHER_PIXELS * pixels


@pytest.mark.parametrize("method", ADAPTABLE)
def test_an_adaptation_equals_that_of_the_cpu(method):
    model, episode = small_model(method).double().eval(), in_float64(part_of(four_episodes(), 0, 1))
    expected, found = (adapted_on(device, model, episode) for device in (CPU, GPU))
    torch.testing.assert_close(found, expected, **IN_FLOAT64)


def adapted_on(device: torch.device, model: FewShotModel, episode: Episode) -> torch.Tensor:
    """Return the logits of a copy of the model that is adapted to an episode."""
    adapter = create_adapter("eftnet", copy.deepcopy(model).to(device), rounds=2)
    return adapter(episode.to(device)).logits.cpu()


WAYS_TO_RUN: dict[str, dict[str, Any]] = {
    "bfloat16": {"reduced": True},
    "channels last": {},
    "compiled": {"compiled": True},
    "compiled in bfloat16": {"reduced": True, "compiled": True},
}


@pytest.mark.parametrize("way", WAYS_TO_RUN)
@pytest.mark.parametrize("method", list_models())
def test_a_step_is_finite_and_near_that_of_float32(method, way):
    if "compiled" in way and not METHODS[method].published.base:
        pytest.skip("compiled are the methods whose decoding has no graph break")
    batch, plain = batch_of(method).to(GPU), in_training(method).to(GPU)
    other = copy.deepcopy(plain)
    if way == "channels last":
        other = other.to(memory_format=torch.channels_last)
    losses = []
    for model, options in ((plain, {}), (other, WAYS_TO_RUN[way])):
        optimizer = create_optimizer(model.param_groups(), "adamw", lr=1e-3, rules=model.group_rules)
        forward, generator = Wrapped(model, **options), torch.Generator(GPU)
        with DrawnOnTheCpu():
            taken = training_step(model, batch, optimizer, forward=forward, generator=generator)
        losses.append(float(sum(taken.values())))
        assert all(parameter.isfinite().all() for parameter in model.parameters())
    relative = 0.05 if "bfloat16" in way else 1e-3
    assert losses[1] == pytest.approx(losses[0], rel=relative)
