"""Tests in reduced precision: every method runs in bfloat16, and CPUs that only emulate it are named."""

from __future__ import annotations

import logging

import pytest
import torch

from fewseg.engine.evaluation.precision import autocast_of, has_instructions
from fewseg.util.metrics import resize_logits
from tests.model.small_models import RECIPES, four_episodes, part_of, small_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("method", RECIPES)
def test_every_method_segments_in_bfloat16(method):
    model = small_model(method).eval()
    episode = part_of(four_episodes(), 0, RECIPES[method].batch)
    autocast = autocast_of("bfloat16", CPU)
    assert autocast is not None
    with torch.inference_mode():
        exact = model(episode).logits
        with autocast:
            reduced = model(episode).logits
    assert torch.isfinite(reduced).all() and not torch.equal(exact, reduced.float())
    scale = exact.std().item() + exact.abs().mean().item()
    assert (exact - reduced.float()).abs().mean().item() < 0.1 * scale


@pytest.mark.parametrize(
    ("precision", "known"), [("bfloat16", False), ("bfloat16", True), ("float32", False)]
)
def test_a_cpu_that_emulates_the_precision_is_named(monkeypatch, caplog, precision, known):
    monkeypatch.setattr("fewseg.engine.evaluation.precision.has_instructions", lambda precision: known)
    with caplog.at_level(logging.WARNING, logger="fewseg"):
        context = autocast_of(precision, CPU)
    assert (context is None) == (precision == "float32")
    told = "Test_Finetune.precision bfloat16: this CPU has no instructions for it" in caplog.text
    assert told == (precision == "bfloat16" and not known) and caplog.text.count("\n") == told


@pytest.mark.parametrize(("amx", "avx512"), [(True, False), (False, True), (False, False)])
def test_either_set_of_instructions_serves(monkeypatch, amx, avx512):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_fp16_supported", lambda: False)
    assert has_instructions("bfloat16") == (amx or avx512) and not has_instructions("float16")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert has_instructions("bfloat16")


def test_logits_are_enlarged_in_float32():
    logits = torch.tensor([1.0, 1.0078125]).bfloat16()[None, None, None]  # neighbours in bfloat16
    enlarged = resize_logits(logits, (1, 5))
    assert enlarged.dtype == torch.float32 and len(enlarged.unique()) == 5
