"""Seeding the random generators."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_draws(seed: int, device: torch.device) -> None:
    """Seed torch on the CPU and on ``device`` alone, in a microsecond; ``torch.manual_seed`` is slow."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)


def set_seed(seed: int, *, deterministic: bool = False) -> None:
    """Seed Python, NumPy and torch.

    Args:
        seed: of all generators.
        deterministic: also prefer operations that give the same digits in every run, which are slower.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if deterministic:
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
