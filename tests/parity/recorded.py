"""Read the recorded runs of the published implementations and hold a model against them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.interface import Episode, Prediction
from model.published import load_published, published_names

SHARED = Path(__file__).resolve().parents[3] / "shared"

ABSOLUTE, RELATIVE = 2e-5, 1e-4


def reader() -> ModuleType:
    """Import the reader that lies beside the recorded cases; skip where they are absent."""
    folder = SHARED / "parity"
    if not folder.is_dir():
        pytest.skip("the recorded figures (../shared/parity) are not beside this checkout")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    import cases

    return cases


def load_case(variant: str, name: str) -> tuple[object, object]:
    """Return (variant, case) such as ``load_case("bam/resnet50", "eval_1shot")``."""
    opened = reader().Variant(SHARED / "parity" / variant)
    return opened, opened.case(name)


def fill(model: nn.Module, variant: object, case: object) -> None:
    """Give ``model`` the recorded weights."""
    weights = {k: torch.from_numpy(np.asarray(v)) for k, v in variant.state_dict(case).items()}
    for name in weights:
        copied = "layer" + name.removeprefix("encoder.")
        if name.startswith("encoder.") and copied in weights:  # recorded with both copies equal
            weights[name] = weights[copied]
    load_published(model, weights)


def episode_of(case: object) -> Episode:
    """Return the case's inputs."""
    return episode_from(case.episode())


def episode_from(arrays: dict[str, np.ndarray]) -> Episode:
    """Turn the arrays of a recorded episode into an ``Episode``."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
    ways = tensors["support"].shape[1]
    for name in ("class_id", "class_index"):
        if name in tensors:
            tensors[name] = tensors[name].reshape(-1, ways)
    tensors.setdefault("class_id", torch.zeros(len(tensors["query"]), ways, dtype=torch.int64))
    return Episode(**tensors)


def assert_close(
    actual: Tensor, recorded: np.ndarray, absolute: float = ABSOLUTE, relative: float = RELATIVE
) -> None:
    """Compare with a recorded array, which may be a subsampled one taken of the same tensor."""
    torch.testing.assert_close(
        actual.detach(), torch.from_numpy(recorded).reshape(actual.shape), atol=absolute, rtol=relative
    )


def assert_gradients(
    model: nn.Module, recorded: dict[str, list[float]], relative: float = 1e-3, cancelling: float = 5e-3
) -> None:
    """Compare [L2 norm, sum] of every recorded gradient; a sum may cancel and is bounded by the norm."""
    ours = {published: name for name, published in published_names(model).items()}
    parameters = dict(model.named_parameters())
    assert recorded
    for published, (norm, total) in recorded.items():
        gradient = parameters[ours[published]].grad
        assert gradient is not None, published
        assert float(gradient.double().norm()) == pytest.approx(norm, rel=relative, abs=1e-8), published
        bound = cancelling * norm * gradient.numel() ** 0.5 + 1e-8
        assert abs(float(gradient.double().sum()) - total) <= bound, published


def assert_statistics(model: nn.Module, recorded: dict[str, list[float]], relative: float = 1e-4) -> None:
    """Compare [L2 norm, sum] of every recorded running statistic."""
    ours = {published: name for name, published in published_names(model).items()}
    assert recorded
    for published, (norm, total) in recorded.items():
        buffer = model.get_buffer(ours[published])
        assert float(buffer.norm()) == pytest.approx(norm, rel=relative), published
        assert float(buffer.sum()) == pytest.approx(total, abs=relative * norm * buffer.numel() ** 0.5), (
            published
        )


def without_dropout(model: nn.Module) -> nn.Module:
    """Switch off every dropout, as the recorded training cases did."""
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return model


def assert_main_loss(model: nn.Module, case: object) -> Prediction:
    """Train one step's worth on the case; hold the only loss against the record and return the prediction."""
    model.train()
    episode = episode_of(case)
    prediction = model(episode)
    losses = model.losses(prediction, episode)
    assert set(losses) == {"main"}
    losses["main"].backward()
    assert losses["main"].item() == pytest.approx(case.meta["train"]["loss"], abs=1e-5)
    return prediction
