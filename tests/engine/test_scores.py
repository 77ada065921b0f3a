"""Scores of a protocol against recorded figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset.episodes import Manifest
from dataset.fold import Fold
from dataset.protocol import load_protocol
from dataset.sampling import EpisodeSpec
from dataset.split import class_split
from engine.scores import Scores
from model.interface import Prediction


@pytest.mark.parametrize("name", ["1way", "2way"])
def test_panets_protocol_counts_as_panet_does(shared: Path, tmp_path: Path, name: str, monkeypatch) -> None:
    """In every fourth episode the query does not show the first class: PANet then counts nothing of it."""
    monkeypatch.setattr(sys, "path", [str(shared / "parity"), *sys.path])
    import reference_inputs

    folder = shared / "parity" / "panet" / "metric"
    inputs = json.loads((folder / f"{name}.json").read_text())["inputs"]
    recorded = np.load(folder / f"{name}.npz")
    number, ways = (inputs["labels"][0] - 1) // 5, inputs["ways"]
    protocol = load_protocol("panet")
    assert not protocol.count_absent and protocol.label_size == "input"
    fold = Fold("pascal", number, class_split("pascal", number), protocol, tmp_path, tmp_path, tmp_path)
    for run in range(inputs["n_runs"]):
        listed = [(classes, seed) for of, classes, seed in inputs["episode_list"] if of == run]
        specs = tuple(EpisodeSpec("query", tuple(classes), (("support",),) * ways) for classes, _ in listed)
        manifest = Manifest("pascal", number, "panet", 1234 + run, 1, ways, "class", False, specs)
        scores = Scores(fold, manifest)
        for index, (classes, seed) in enumerate(listed):
            predicted, target = _episode(reference_inputs.labels, inputs, seed, absent=index % 4 == 3)
            logits = torch.nn.functional.one_hot(torch.from_numpy(predicted).long(), 1 + ways)
            label = np.array([0, *classes, *[0] * (254 - ways), 255], np.uint8)[target]
            scores.add(index, Prediction(logits.permute(2, 0, 1)[None].float(), {}), label)
        found = scores.metrics()
        assert found["mIoU"] == pytest.approx(recorded["per_run_mean_iou"][run], abs=1e-6)
        assert found["FB-IoU"] == pytest.approx(recorded["per_run_binary_mean_iou"][run], abs=1e-6)


def _episode(labels, inputs: dict, seed: int, absent: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return prediction and target by the recorded rule."""
    height, width = inputs["size"]
    agree = np.random.RandomState(seed).rand(height, width) < 0.6
    predicted = labels(seed + 1, 1, height, width, inputs["ways"] + 1, None)[0]
    target = labels(seed + 2, 1, height, width, inputs["ways"] + 1, 255)[0]
    predicted = np.where(agree & (target != 255), target, predicted)
    if absent:
        target[target == 1] = 0
    return predicted, target
