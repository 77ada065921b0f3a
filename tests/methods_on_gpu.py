"""Work of every method on a pretended GPU, and what made the host wait in it.

    python -m tests.methods_on_gpu bam step          # one training step
    python -m tests.methods_on_gpu bam evaluation    # twenty episodes, by engine/evaluation/encode_once
    python -m tests.methods_on_gpu bam adaptation    # three episodes, adapted by EFTNet

Each lists the waits with the project's lines that asked for them, and the number of operations on the GPU.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.dataset.shapes.files import draw_shapes
from fewseg.engine.evaluation.encode_once import evaluate
from fewseg.engine.evaluation.one_by_one import evaluate_one_by_one
from fewseg.engine.setup.data import test_episodes, test_fold_of
from fewseg.engine.training.optimisation import create_optimizer
from fewseg.engine.training.step import training_step
from fewseg.model import create_adapter
from fewseg.util.config import load_config
from tests.model.small_models import RECIPES, SIDE, four_episodes, part_of, small_model
from tests.pretend_gpu import PretendedGpu, pretended_gpu

EPISODES = 10
"""Episodes of each of two seeds."""

_CONFIG = """
Data: {{data_set: shapes, data_root: {root}, val_list: {root}/ImageSets/Segmentation/train.txt,
       train_h: {side}, train_w: {side}, val_size: {side}, protocol_options: {{min_area: 60}}}}
Method: {{arch: pfenet}}
Test_Finetune: {{episodes: {episodes}, seeds: [1, 2]}}
"""


def step(method: str, gpu: PretendedGpu) -> None:
    """Take one training step, after one that is not counted."""
    recipe = RECIPES[method]
    model = small_model(method).to("cuda").train()
    optimizer = create_optimizer(model.param_groups(), "adamw", lr=1e-3, rules=model.group_rules)
    batch = part_of(four_episodes(), 0, recipe.batch).to("cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    training_step(model, batch, optimizer, generator=generator)
    gpu.reset()
    training_step(model, batch, optimizer, generator=generator)


def evaluation(method: str, gpu: PretendedGpu) -> None:
    """Evaluate ``EPISODES`` episodes of two seeds."""
    model, episodes = small_model(method).to("cuda"), shapes_episodes()
    gpu.reset()
    evaluate(model, episodes)


def adaptation(method: str, gpu: PretendedGpu) -> None:
    """Adapt to the three episodes of one seed, two rounds each."""
    model, episodes = small_model(method).to("cuda").eval(), shapes_episodes(3, seeds=1)
    adapter = create_adapter("eftnet", model, rounds=2)
    gpu.reset()
    evaluate_one_by_one(model, episodes, adapter=adapter)


def shapes_episodes(count: int = EPISODES, seeds: int = 2) -> EpisodeSet:
    """Draw episodes of small pictures."""
    root = Path(tempfile.gettempdir()) / "fewseg_pretended_gpu"
    draw_shapes(root / "shapes", images=60, size=96, workers=0)
    file = root / "test.yaml"
    file.write_text(_CONFIG.format(root=root / "shapes", side=SIDE, episodes=EPISODES))
    config = load_config(file, ["episodes", str(count), "seeds", str(list(range(1, 1 + seeds)))])
    return test_episodes(config, test_fold_of(config))


WORK: dict[str, Callable[[str, PretendedGpu], None]] = {
    "step": step,
    "evaluation": evaluation,
    "adaptation": adaptation,
}


if __name__ == "__main__":
    method, kind = sys.argv[1:]
    torch.manual_seed(0)
    with pretended_gpu() as gpu:
        WORK[kind](method, gpu)
    print(gpu.listed())
    print(f"{len(gpu.waits)} waits, {gpu.operations} operations")
