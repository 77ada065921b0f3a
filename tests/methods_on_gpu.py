"""Work of every method on a pretended GPU, and what made the host wait in it.

    python -m tests.methods_on_gpu bam step          # one training step
    python -m tests.methods_on_gpu bam training      # two of them, in the loop of engine/training
    python -m tests.methods_on_gpu bam evaluation    # episodes, by engine/evaluation/encode_once
    python -m tests.methods_on_gpu bam generalised   # the same, with the base classes
    python -m tests.methods_on_gpu bam adaptation    # episodes, adapted by EFTNet
    python -m tests.methods_on_gpu bam prediction    # two images of a user
    python -m tests.methods_on_gpu panet mining      # latent classes of twenty images

Each lists the waits with the project's lines that asked for them, and the number of operations on the GPU.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.episodes.sampling import EpisodeSpec
from fewseg.dataset.loading.batches import EpochBatches
from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.dataset.loading.few_shot import EpisodeBatch
from fewseg.dataset.shapes.files import draw_shapes
from fewseg.engine.evaluation.encode_once import evaluate
from fewseg.engine.evaluation.generalized import GeneralizedScores
from fewseg.engine.evaluation.one_by_one import evaluate_one_by_one
from fewseg.engine.evaluation.scores import MakeScores, Scores
from fewseg.engine.mining.mine import Miner, MiningSettings
from fewseg.engine.prediction.predict import Example, Segmenter
from fewseg.engine.setup.data import fold_of, test_episodes, test_fold_of
from fewseg.engine.training.loop import TrainingLoop
from fewseg.engine.training.optimisation import PolySchedule, create_optimizer
from fewseg.engine.training.saving import Snapshots
from fewseg.engine.training.snapshot import Progress
from fewseg.engine.training.step import training_step
from fewseg.engine.training.tensorboard import TensorBoardWriter
from fewseg.model import create_adapter
from fewseg.model.fewshot import FewShotModel
from fewseg.util.config import Config, load_config
from fewseg.util.config.schema import Train
from tests.model.small_models import RECIPES, SIDE, four_episodes, part_of, small_model
from tests.pretend_gpu import PretendedGpu, pretended_gpu

SHOWN = 2
"""Steps after which the loop shows its losses."""

EPISODES, ADAPTED = 6, 2

_CONFIG = """
Data: {{data_set: shapes, data_root: {root}, val_list: {root}/ImageSets/Segmentation/train.txt,
       train_list: {root}/ImageSets/Segmentation/train.txt,
       train_h: {side}, train_w: {side}, val_size: {side}, protocol_options: {{min_area: 60}}}}
Method: {{arch: pfenet}}
Test_Finetune: {{episodes: {episodes}, seeds: [1]}}
"""


class Batches:
    """A loader of one pinned batch again and again, which notes how often the host has waited by then."""

    def __init__(self, method: str, batches: EpochBatches, gpu: PretendedGpu) -> None:
        episode = part_of(four_episodes(), 0, min(RECIPES[method].batch, 2))
        tensors = {name: value.pin_memory() for name, value in vars(episode).items() if value is not None}
        specs = (EpisodeSpec("query", (1,), (("support",),)),) * len(episode.query)
        self.batch = EpisodeBatch(replace(episode, **tensors), specs)
        self._batches, self._gpu, self.waits = batches, gpu, list[int]()

    def batches(self, check: Callable[[], None]) -> Iterator[EpisodeBatch]:
        for _ in self._batches:
            check()
            self.waits.append(len(self._gpu.waits))
            yield self.batch


def step(method: str, gpu: PretendedGpu) -> None:
    """Take one training step, after one that is not counted."""
    model, optimizer = trained_on_gpu(method)
    batch = part_of(four_episodes(), 0, RECIPES[method].batch).to("cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    training_step(model, batch, optimizer, generator=generator)
    gpu.reset()
    training_step(model, batch, optimizer, generator=generator)


def training(method: str, gpu: PretendedGpu) -> None:
    """Take steps in the loop, and keep the waits of ``SHOWN`` of them that follow each other."""
    model, optimizer = trained_on_gpu(method)
    batches = EpochBatches(2 * SHOWN + 1, 1)
    loader = Batches(method, batches, gpu)
    settings = Train(epochs=1, print_freq=SHOWN, evaluate=False)
    with tempfile.TemporaryDirectory() as folder:
        TrainingLoop(
            model=model,
            optimizer=optimizer,
            schedule=PolySchedule(1e-3, 2 * SHOWN + 1),
            loader=loader,
            batches=batches,
            validate=None,
            snapshots=Snapshots(Path(folder), {"arch": method}, {"epochs": 1}),
            board=TensorBoardWriter(Path(folder) / "board"),
            reached=Progress(seed=3),
            settings=settings,
        ).run()
    gpu.waits = gpu.waits[loader.waits[SHOWN] : loader.waits[2 * SHOWN]]


def trained_on_gpu(method: str) -> tuple[FewShotModel, torch.optim.Optimizer]:
    """Return a model on the GPU, and its optimizer."""
    model = small_model(method).to("cuda").train()
    return model, create_optimizer(model.param_groups(), "adamw", lr=1e-3, rules=model.group_rules)


def evaluation(method: str, gpu: PretendedGpu, scores_of: MakeScores = Scores, opts: Any = ()) -> int:
    """Evaluate ``EPISODES`` episodes; return the number of batches in which they were decoded."""
    config, fold = opened(*opts)
    classes = len(fold.classes.base)
    model, episodes = small_model(method, base_classes=classes).to("cuda"), test_episodes(config, fold)
    decode, decoded = model.decode, 0

    def counted(*arguments: Any) -> Any:
        nonlocal decoded
        decoded += 1
        return decode(*arguments)

    model.decode = counted
    gpu.reset()
    evaluate(model, episodes, scores_of=scores_of)
    return decoded


def generalised(method: str, gpu: PretendedGpu) -> int:
    """Evaluate base and novel classes together."""
    make = partial(GeneralizedScores, merge_tau=0.5)
    return evaluation(method, gpu, make, ("Test_Finetune.generalized", "true", "arch", "bam"))


def adaptation(method: str, gpu: PretendedGpu) -> None:
    """Adapt to ``ADAPTED`` episodes, two rounds each."""
    model = small_model(method).to("cuda").eval()
    adapter = create_adapter("eftnet", model, rounds=2)
    episodes = shapes_episodes(ADAPTED)
    gpu.reset()
    evaluate_one_by_one(model, episodes, adapter=adapter)


def prediction(method: str, gpu: PretendedGpu) -> int:
    """Segment images of a user, given one example; return their number."""
    _, fold = opened()
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    mask = np.zeros((60, 80), np.uint8)
    mask[10:50, 20:60] = 1
    model = small_model(method).to("cuda")
    gpu.reset()
    segmenter = Segmenter(model, [Example(image, mask)], fold.resize, class_id=1)
    for query in (image, image[:, ::-1].copy()):
        segmenter(query)
    return 2


def mining(method: str, gpu: PretendedGpu) -> int:
    """Mine latent classes; return the number of images."""
    config, _ = opened("arch", "mlc")
    miner = Miner(small_model(method).to("cuda"), fold_of(config), 1, MiningSettings(clusters=5))
    gpu.reset()
    for _ in miner.labels(miner.centres()):
        pass
    return len(miner.names)


def shapes_episodes(count: int = EPISODES) -> EpisodeSet:
    """Draw episodes of small pictures."""
    config, fold = opened("episodes", str(count))
    return test_episodes(config, fold)


def opened(*opts: str) -> tuple[Config, Fold]:
    """Return the config of a test on small pictures, and its fold."""
    config = load_config(Path(_folder().name) / "test.yaml", list(opts))
    return config, test_fold_of(config)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Draw the pictures and write the config, once; both go when Python ends."""
    folder = tempfile.TemporaryDirectory()
    root = Path(folder.name)
    draw_shapes(root / "shapes", images=60, size=96, workers=0)
    text = _CONFIG.format(root=root / "shapes", side=SIDE, episodes=EPISODES)
    (root / "test.yaml").write_text(text)
    return folder


WORK: dict[str, Callable[[str, PretendedGpu], Any]] = {
    work.__name__: work for work in (step, training, evaluation, generalised, adaptation, prediction, mining)
}


if __name__ == "__main__":
    method, kind = sys.argv[1:]
    torch.manual_seed(0)
    with pretended_gpu() as gpu:
        WORK[kind](method, gpu)
    print(gpu.listed())
    print(f"{len(gpu.waits)} waits, {gpu.operations} operations")
