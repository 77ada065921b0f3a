"""Open the data of a run from its config."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from fewseg.dataset.classes.fold import Fold, open_fold
from fewseg.dataset.classes.namesakes import fold_of_other_data, unseen_classes
from fewseg.dataset.classes.split import ClassSplit
from fewseg.dataset.episodes.manifest import Manifest, read_manifest
from fewseg.dataset.episodes.manifest_check import check_manifest
from fewseg.dataset.episodes.protocol import Protocol
from fewseg.dataset.loading.base_classes import BaseDataset, BaseEvaluation, without_novel
from fewseg.dataset.loading.batches import EpochBatches, as_loaded
from fewseg.dataset.loading.evaluation import EpisodeSet
from fewseg.dataset.loading.few_shot import EpisodeDataset
from fewseg.dataset.loading.store import ImageStore
from fewseg.dataset.reading.transform import PlainTransform, TrainTransform
from fewseg.engine.setup.auxiliary import test_auxiliary, training_auxiliary
from fewseg.engine.setup.interrupt import leave_signals_to_run
from fewseg.engine.setup.loader import Loader
from fewseg.engine.setup.protocols import list_of, test_protocol, training_protocol
from fewseg.engine.setup.stage import trains_base_learner
from fewseg.engine.setup.tested_data import tested_annotation, tested_data, tested_fold
from fewseg.engine.setup.weights import fill
from fewseg.util import distributed
from fewseg.util.config import Config
from fewseg.util.errors import ConfigError, DataError

_WORKER_CACHE = 128 << 20
"""Cache of decoded images in every loader worker, in bytes."""

_VALIDATION_SEED = 321
"""The seed of the validation episodes in the published training scripts."""


def fold_of(config: Config) -> Fold:
    """Open the fold that the config names, under the protocol of training."""
    return _fold_under(config, training_protocol(config))


def _fold_under(config: Config, protocol: Protocol) -> Fold:
    data = config.Data
    if data.data_root is None:
        raise ConfigError("Data.data_root: unset; name the folder of the data set: --opts data_root PATH")
    return open_fold(
        data.data_set,
        data.data_root,
        data.split,
        protocol,
        train_list=list_of(config, "train_images", protocol),
        val_list=list_of(config, "test_images", protocol),
    )


def test_fold_of(config: Config) -> Fold:
    """Open the fold that the config tests, under the protocol of testing.

    Of other data than those of the training, its novel classes are those of the fold that is named, or else
    all classes whose names the training has not seen; there are no base classes.

    Raises:
        DataError: the training has seen all classes, or the classes of its data cannot be read.
    """
    protocol, tested = test_protocol(config), tested_data(config)
    if tested is config:
        return _fold_under(config, protocol)
    # Fold system and selection of the protocol are those of the training.
    system = {"interleaved_folds": tested.Data.use_split_coco, "selection": "novel"}
    fold = replace(_fold_under(tested, protocol.with_overrides(**system)), protocol=protocol)
    trained, number = _trained_classes(config), tested_fold(config)
    words = f"{tested.Data.data_set}", f"{config.Data.data_set} fold {config.Data.split}"
    if number is not None:
        return replace(fold, classes=fold_of_other_data(fold.classes, trained, *words))
    offered = fold.classes if fold.class_folders is None else replace(fold.classes, base=())
    return replace(fold, number=config.Data.split, classes=unseen_classes(offered, trained, *words))


def classes_of_training(config: Config, tested: Fold) -> ClassSplit:
    """Return the classes of the training; those of the tested fold, unless other data are tested."""
    return tested.classes if tested_data(config) is config else _trained_classes(config)


def _trained_classes(config: Config) -> ClassSplit:
    """Return the classes of a training on other data than the tested ones."""
    try:
        return fold_of(config).classes
    except DataError as failure:
        raise DataError(
            f"{failure} (class names and lists of the training's data tell which classes are new)"
        ) from failure


def training_data(config: Config, fold: Fold, seed: int) -> BaseDataset | EpisodeDataset:
    """Return the training set of the config's stage."""
    data = config.Data
    if data.train_h != data.train_w:
        raise ConfigError(
            f"{config.where('Data.train_h')}: Data.train_h {data.train_h} and train_w {data.train_w} differ, "
            "but training crops are square; give both one value"
        )
    augment = TrainTransform(
        data.train_h, (data.scale_min, data.scale_max), (data.rotate_min, data.rotate_max)
    )
    if trains_base_learner(config):
        store = ImageStore(fold.train_images, _WORKER_CACHE)
        remove = data.novel_in_train == "remove"
        positions = without_novel(fold.train_areas, fold.classes) if remove else None
        return BaseDataset(store, fold.classes, augment, seed=seed, positions=positions)
    chain = fold.protocol.train_chain
    plain = PlainTransform(data.train_h, crops=chain.startswith("crop"), flips=chain.endswith("flip"))
    lists = fold.train_lists(data.shot)
    return EpisodeDataset(
        lists,
        fold.classes,
        augment if chain == "augment" else plain,
        shot=data.shot,
        ways=data.ways,
        seed=seed,
        annotation=data.ann_type,
        annotation_seed=data.ann_seed,
        support_void=fold.protocol.support_void,
        cache_bytes=_WORKER_CACHE,
        auxiliary=training_auxiliary(config, fold, lists),
    )


def training_loader(config: Config, data: BaseDataset | EpisodeDataset) -> tuple[Loader, EpochBatches]:
    """Return this process's loader, and the batch sampler that sets its epoch and step."""
    train, processes = config.Train, distributed.world_size()
    if train.batch_size % (train.accumulate * processes):
        raise ConfigError(
            f"{config.where('Train.accumulate')}: Train.accumulate: batch_size {train.batch_size} must be a "
            f"multiple of accumulate {train.accumulate} times {processes} processes"
        )
    batches = EpochBatches(len(data), train.batch_size, distributed.rank(), processes)
    loader = Loader(
        data,
        batch_sampler=batches,
        collate_fn=as_loaded,
        **_workers(config),
    )
    return loader, batches


def base_evaluation_loader(config: Config, fold: Fold) -> Loader:
    """Return this process's share of the test images with base labels, in batches."""
    store = ImageStore(fold.val_images, classes=len(fold.classes.names) - 1)
    data = BaseEvaluation(store, fold.classes, fold.resize)
    share = range(distributed.rank(), len(data), distributed.world_size())
    return Loader(
        data,
        batch_size=config.Train.batch_size_val,
        sampler=share,
        collate_fn=as_loaded,
        **_workers(config),
    )


def test_episodes(config: Config, fold: Fold) -> EpisodeSet:
    """Draw the test episodes of every seed, or read them if the config names their files."""
    data, test = config.Data, config.Test_Finetune
    form: dict[str, Any] = {"shot": data.shot, "ways": data.ways, "generalized": test.generalized}
    if test.episodes_file is None:
        drawn = [fold.manifest(seed, **form) for seed in fold.protocol.seeds]
        return _episodes(config, fold, drawn, tested_annotation(config))
    manifests = []
    for path in (fill(name, config) for name in test.episodes_file):
        manifests.append(read_manifest(path))
        check_manifest(manifests[-1], fold, path, **form)
    return _episodes(config, fold, manifests, tested_annotation(config))


def validation_episodes(config: Config, fold: Fold, epoch: int) -> EpisodeSet:
    """Draw the episodes of a validation, always the same unless ``fix_random_seed_val`` is False.

    Args:
        config: config of the training.
        fold: the fold that selects snapshots.
        epoch: the epoch of the validation.
    """
    train, data = config.Train, config.Data
    seed = _VALIDATION_SEED + (0 if train.fix_random_seed_val else epoch)
    drawn = [fold.manifest(seed, data.shot, ways=data.ways, episodes=train.val_episodes)]
    return _episodes(config, fold, drawn, data.ann_type)


def _episodes(config: Config, fold: Fold, manifests: list[Manifest], annotation: str) -> EpisodeSet:
    return EpisodeSet(fold, manifests, annotation, config.Data.ann_seed, test_auxiliary(config, fold))


def _workers(config: Config) -> dict[str, Any]:
    workers = config.Train.workers
    return {
        "num_workers": workers,
        "persistent_workers": workers > 0,
        "worker_init_fn": leave_signals_to_run if workers else None,
        "pin_memory": torch.cuda.is_available(),
    }
