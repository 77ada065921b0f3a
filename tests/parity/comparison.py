"""Hold a model against the recorded runs of the published implementations."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fewseg.model.checkpoint.published import load_published, published_names
from fewseg.model.contract import Episode, Prediction
from tests.parity.cases import Case, Figures, Variant
from tests.parity.rounding import leeway, precise, prepare

ABSOLUTE, RELATIVE = 2e-5, 1e-4

Recorded = Figures | Tensor | np.ndarray | list[float] | float


def fill(model: nn.Module, variant: Variant, case: Case) -> None:
    """Give ``model`` the recorded weights."""
    weights = {k: torch.from_numpy(np.asarray(v)) for k, v in variant.state_dict(case).items()}
    for name in weights:
        copied = "layer" + name.removeprefix("encoder.")
        if name.startswith("encoder.") and copied in weights:  # recorded with both copies equal
            weights[name] = weights[copied]
    load_published(model, weights)
    prepare(model)


def episode_of(case: Case) -> Episode:
    """Return the case's inputs."""
    return episode_from(case.episode())


def episode_from(arrays: dict[str, np.ndarray]) -> Episode:
    """Turn the arrays of a recorded episode into an ``Episode``."""
    tensors = {name: precise(np.ascontiguousarray(value)) for name, value in arrays.items()}
    ways = tensors["support"].shape[1]
    for name in ("class_id", "class_index"):
        if name in tensors:
            tensors[name] = tensors[name].reshape(-1, ways)
    tensors.setdefault("class_id", torch.zeros(len(tensors["query"]), ways, dtype=torch.int64))
    return Episode(**tensors)


def assert_close(
    actual: Tensor | np.ndarray | list[float] | float,
    recorded: Recorded,
    absolute: float = ABSOLUTE,
    relative: float = RELATIVE,
) -> None:
    """Compare with recorded figures, in every form in which they are there."""
    actual = actual.detach() if isinstance(actual, Tensor) else torch.tensor(actual, dtype=torch.float64)
    room = leeway(actual)
    if room is not None:
        for form in recorded.forms if isinstance(recorded, Figures) else (recorded,):
            expected = torch.as_tensor(form, dtype=actual.dtype).reshape(actual.shape)
            kept = ~expected.isnan()
            assert kept.any(), "the thinned record holds nothing of these figures"
            torch.testing.assert_close(actual[kept], expected[kept], atol=max(absolute, room), rtol=relative)


def agreement(actual: Tensor, recorded: Figures) -> float:
    """Return the share of labels that equal the recorded ones."""
    return min(float((actual.numpy() == form).mean()) for form in recorded.forms)


def assert_gradients(
    model: nn.Module, recorded: dict[str, list[float]], relative: float = 1e-3, cancelling: float = 5e-3
) -> None:
    """Compare [L2 norm, sum] of every recorded gradient."""
    gradients = {name: model.get_parameter(ours).grad for name, ours in _ours(model, recorded).items()}
    assert_norms_and_sums(gradients, recorded, relative, cancelling, smallest=1e-8)


def assert_statistics(model: nn.Module, recorded: dict[str, list[float]], relative: float = 1e-4) -> None:
    """Compare [L2 norm, sum] of every recorded running statistic or weight."""
    state = model.state_dict()
    entries = {name: state[ours] for name, ours in _ours(model, recorded).items()}
    assert_norms_and_sums(entries, recorded, relative, relative)


def assert_norms_and_sums(
    tensors: dict[str, Tensor],
    recorded: dict[str, list[float]],
    relative: float,
    cancelling: float,
    smallest: float = 1e-12,
) -> None:
    """Compare tensors with their recorded [L2 norm, sum].

    Args:
        tensors: by the names of the record.
        recorded: by name.
        relative: tolerance of a norm.
        cancelling: tolerance of a sum as a share of norm * sqrt(n), since a sum may cancel.
        smallest: absolute tolerance.
    """
    assert recorded
    names = list(recorded)
    norms, sums = torch.tensor([recorded[name] for name in names], dtype=torch.float64).unbind(1)
    found = [tensors[name].detach().double() for name in names]
    root = torch.tensor([float(tensor.numel()) for tensor in found], dtype=torch.float64).sqrt()
    for figure, ours, theirs, bound in (
        ("norm", [t.norm() for t in found], norms, (relative * norms).clamp_min(smallest)),
        ("sum", [t.sum() for t in found], sums, cancelling * norms * root + smallest),
    ):
        ours = torch.stack(ours)
        room = leeway(ours / bound)
        if room is not None:
            deviation = (ours - theirs).abs() / bound
            worst = int(deviation.argmax())
            assert deviation[worst] <= max(1.0, room), (
                f"{figure} of {names[worst]}: {ours[worst]:.8g}, recorded {theirs[worst]:.8g},"
                f" which is {deviation[worst]:.2f} of the tolerance; {max(1.0, room):.2f} are allowed"
            )


def _ours(model: nn.Module, recorded: Iterable[str]) -> dict[str, str]:
    """Return published name -> ours of what was recorded."""
    names = {published: name for name, published in published_names(model).items()}
    return {published: names[published] for published in recorded}


def without_dropout(model: nn.Module) -> nn.Module:
    """Switch off every dropout, as the recorded training cases did."""
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return model


def assert_main_loss(model: nn.Module, case: Case) -> Prediction:
    """Train one step's worth on the case; hold the only loss against the record and return the prediction."""
    model.train()
    episode = episode_of(case)
    prediction = model(episode)
    losses = model.losses(prediction, episode)
    assert set(losses) == {"main"}
    losses["main"].backward()
    assert losses["main"].item() == pytest.approx(case.meta["train"]["loss"], abs=1e-5)
    return prediction
