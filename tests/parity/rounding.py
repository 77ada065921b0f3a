"""How recorded comparisons hold on every CPU.

The records are float32 runs on one thread of one AVX2 machine. Comparisons run on one thread too
(``conftest.py``), but another instruction set or another maker's kernels still add up in another order. Most
comparisons leave room enough for that and are made in float32. Statistics of small batches, sums that cancel
and steps of learning amplify roundings until they leave the tolerances; a test of these is marked
``amplified``.

An amplified test runs in float64. Our side is then the same on every machine, but for digits that no
tolerance sees, so a test that holds on one CPU holds on all of them, and what is left is the rounding of the
record. How far that may reach is measured: the test first runs with weights that are changed by a relative
``NOISE``, the precision of float32, and a figure may then differ from the record by its tolerance or by
``FACTOR`` times the change that this makes, whichever is more. An error of the code, which changes figures by
far more than a last digit of the weights does, still fails.

Not every case can be amplified: where published code takes a decision or stretches a range that is rounding
and nothing else, float64 gives another answer than float32. Such a case stays in float32, see
``test_eftnet.py``.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

NOISE = 1e-7
FACTOR = 10.0


@dataclass(frozen=True)
class _Run:
    """One of the two runs of an amplified test: the first notes its figures, the second compares them."""

    noise: float
    figures: deque[Tensor]


_run: ContextVar[_Run | None] = ContextVar("run", default=None)


def amplified(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in float64, once to measure how sensitive its figures are and once to compare them."""

    @functools.wraps(test)
    def measured(*arguments: object, **named: object) -> None:
        figures: deque[Tensor] = deque()
        for noise in (NOISE, 0.0):
            token = _run.set(_Run(noise, figures))
            try:
                test(*arguments, **named)
            finally:
                _run.reset(token)
        assert not figures, "the two runs compared different figures"

    return measured


def prepare(model: nn.Module) -> None:
    """Give a model that holds the recorded weights the precision and the noise of the run."""
    run = _run.get()
    if run is not None:
        perturb(model.double(), run.noise)


@torch.no_grad()
def perturb(model: nn.Module, noise: float = NOISE, seed: int = 0) -> None:
    """Change every parameter by a normally distributed share of itself, ``noise`` in the mean square."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.copy_(parameter.double() * (1 + noise * drawn))


def precise(array: np.ndarray) -> Tensor:
    """Turn an input into a tensor in the precision of the run."""
    tensor = torch.from_numpy(array)
    return tensor.double() if _run.get() is not None and tensor.is_floating_point() else tensor


def leeway(figures: Tensor) -> float | None:
    """Return by how much ``figures`` may differ from their record for rounding alone.

    Returns:
        0 in a plain test, and None in the run that measures, which compares nothing.
    """
    run = _run.get()
    if run is None:
        return 0.0
    if run.noise:
        run.figures.append(figures)
        return None
    return FACTOR * float((run.figures.popleft() - figures).abs().max())
