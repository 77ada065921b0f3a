"""Train what a config describes: a base learner (stage 1, ``arch: pspnet``) or a few-shot model (stage 2).

python train.py --config config/pascal/pspnet_resnet50.yaml --opts split 0
python train.py --config config/pascal/bam_resnet50.yaml --opts split 0 shot 1
python train.py --config ... --opts resume auto     # go on where this run stopped, if it ever began
python train.py --config ... --overwrite            # begin anew; an earlier training of the same name goes
python tools/launch.py --nproc-per-node 4 train.py --config ...   # GPUs; batch_size stays that of the config
"""

from __future__ import annotations

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

import argparse
import secrets
from dataclasses import replace

import torch
from torch.optim import Optimizer

from fewseg.engine.setup.auxiliary import mined_labels_hash
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import fold_of, training_data, training_loader
from fewseg.engine.setup.protocols import settled
from fewseg.engine.setup.run_folder import BOARD, RunFolder
from fewseg.engine.setup.script import log_notices, run_script
from fewseg.engine.setup.weights import base_learner_hash, describe, start_weights
from fewseg.engine.training.course import (
    check_course,
    check_origin,
    course_of,
    keeps_moments,
    placed,
    resumed,
)
from fewseg.engine.training.expectations import say_what_to_expect
from fewseg.engine.training.finished import write_finished
from fewseg.engine.training.length import Length
from fewseg.engine.training.loop import TrainingLoop
from fewseg.engine.training.optimisation import PolySchedule, create_optimizer
from fewseg.engine.training.parallel import allow_tf32, synchronised
from fewseg.engine.training.saving import Snapshots
from fewseg.engine.training.snapshot import Origin, Progress, Snapshot
from fewseg.engine.training.tensorboard import TensorBoardWriter
from fewseg.engine.training.validate import validation_of
from fewseg.model.contract import Network
from fewseg.util import distributed
from fewseg.util.command_line import add_config, command_line
from fewseg.util.config import Config, load_config
from fewseg.util.log import get_log, start_log
from fewseg.util.seed import set_seed


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__)
    add_config(parser, "what to train, on what and how", "split 1 shot 5")
    parser.add_argument(
        "--overwrite", action="store_true", help="begin anew where an earlier training lies, and remove that"
    )
    parser.add_argument(
        "--allow-changes", action="store_true", help="go on under other settings than the run had so far"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Train as the command line says."""
    args = parse_arguments(argv)
    config = load_config(args.config, args.opts)
    device = distributed.start()
    start_log()
    log_notices([config])
    train(config, device, overwrite=args.overwrite, allow_changes=args.allow_changes)


def train(
    config: Config, device: torch.device, overwrite: bool = False, allow_changes: bool = False
) -> Progress:
    """Run, or go on with, the training that ``config`` describes; return how far it came.

    Args:
        config: of the training.
        device: to train on.
        overwrite: begin anew where an earlier training lies.
        allow_changes: go on under other settings than the run had so far.
    """
    log, config = get_log("train"), settled(without_adaptation(config))
    with RunFolder(config, overwrite) as folder:
        log.info(
            *("training %s on %s fold %d in %s", config.Method.arch, config.Data.data_set),
            *(config.Data.split, folder.path),
        )
        loop = prepare(config, device, folder, allow_changes)
        folder.begin(done=loop.done)
        start = loop.reached.epoch
        reached = loop.run()
        write_finished(config, loop)
        score = "" if reached.best_score < 0 else f": best score {100 * reached.best_score:.2f}"
        news = "done" if reached.epoch > start else "nothing left to do"
        log.info("%s after %d epochs%s; weights in %s", news, reached.epoch, score, folder.path)
    return reached


def without_adaptation(config: Config) -> Config:
    """Return the config of the training, which is the same whether its weights are to be adapted or not."""
    adapt = config.Test_Finetune.adapt
    if adapt is None:
        return config
    get_log("train").info("adapt: %s changes tests only; %s itself is trained", adapt, config.Method.arch)
    return config.with_values(Test_Finetune={"adapt": None, "adapt_options": {}})


def prepare(
    config: Config, device: torch.device, folder: RunFolder, allow_changes: bool = False
) -> TrainingLoop:
    """Build all that the training needs, and write nothing."""
    snapshot = Snapshot.read(folder.earlier_state) if folder.earlier_state else None
    reached = new_progress(config)
    if snapshot is not None:
        reached = resumed(snapshot, config, reached.seed)
    set_seed(reached.seed, deterministic=config.Train.seed_deterministic)
    if device.type == "cuda":
        allow_tf32(config.Train.tf32)

    fold = fold_of(config)
    data = training_data(config, fold, reached.seed)
    course = course_of(config, fold, len(data))
    changes = check_course(snapshot, course, allow_changes) if snapshot else ()
    loader, batches = training_loader(config, data)
    if snapshot is not None:
        reached = placed(snapshot, reached, course, len(batches))

    model: Network = build_network(config, fold.classes)
    if snapshot is None:
        start, base_learner = start_weights(model, config, fold.classes)
        say_what_to_expect(config, fold, len(data), start)
        origin = Origin(base_learner, mined_labels_hash(config))
    else:
        now = Origin(base_learner_hash(model, config, fold.classes), mined_labels_hash(config))
        origin = check_origin(snapshot, now, allow_changes)
        origin = replace(origin, changed=origin.changed or bool(changes))
    model = synchronised(model, device).to(device).to(memory_format=torch.channels_last)
    schedule = schedule_of(config, len(batches))
    optimizer = optimizer_of(config, model)
    if snapshot is not None:
        snapshot.restore(model, optimizer, moments=keeps_moments(changes))
        snapshot.tell_other_processes()

    board = TensorBoardWriter(folder.path / BOARD, reached.epoch * len(batches) + reached.step + 1)
    return TrainingLoop(
        model=model,
        optimizer=optimizer,
        schedule=schedule,
        loader=loader,
        batches=batches,
        validate=validation_of(config, fold, model, board),
        snapshots=Snapshots(
            *(folder.path, describe(config, fold.classes), course, config.Train.save_minutes, snapshot),
            origin,
        ),
        board=board,
        reached=reached,
        settings=config.Train,
    )


def new_progress(config: Config) -> Progress:
    """Return the start of a run; its seed is drawn where the config fixes none."""
    seed = config.Train.manual_seed
    seed = distributed.from_main(secrets.randbits(31) if seed is None else seed)
    return Progress(seed=seed, epoch=config.Train.start_epoch)


def optimizer_of(config: Config, model: Network) -> Optimizer:
    """Return the optimiser of what learns in ``model``."""
    train = config.Train
    return create_optimizer(
        model.param_groups(),
        train.optimizer,
        lr=train.base_lr,
        momentum=train.momentum,
        weight_decay=train.weight_decay,
        rules=model.group_rules,
        clip_norm=train.clip_norm,
    )


def schedule_of(config: Config, steps_per_epoch: int) -> PolySchedule:
    """Return the learning rates; a warm-up takes half an epoch."""
    train = config.Train
    warmup = steps_per_epoch // 2 if train.warmup else 0
    steps = Length.of(train, steps_per_epoch).steps
    return PolySchedule(train.base_lr, steps, train.power, train.index_split, warmup, train.milestones)


if __name__ == "__main__":
    run_script(main)
