"""The settings and data that determine the course of a training, which a resumed run must share or change."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from fewseg.dataset.classes.fold import Fold
from fewseg.dataset.lists.image_lists import ImageList
from fewseg.engine.setup.run_path import RUN_CONFIG
from fewseg.engine.training.snapshot import Origin, Progress, Snapshot
from fewseg.util.config import Config
from fewseg.util.config.differences import TRAINING, values
from fewseg.util.config.published import UNUSED
from fewseg.util.config.schema import default_of
from fewseg.util.config.types import Effect
from fewseg.util.errors import CheckpointError
from fewseg.util.log import get_log

Course = Mapping[str, Any]
"""Key path of the config, or a property of the data -> plain value."""

_EPOCHS, _MAX_STEPS, _SEED, _BATCH, _OPTIMIZER = (
    "Train.epochs",
    "Train.max_steps",
    "Train.manual_seed",
    "Train.batch_size",
    "Train.optimizer",
)
_BASE_CLASSES, _IMAGES = "base classes", "images per epoch"

_PLACES = ("Data.data_root", "Data.train_list", "Data.val_list")
"""Keys of paths to the data, which are not part of the course; the listed images are."""

_FIXED = (
    *("Method.arch", "Method.backbone", "Data.data_set", "Data.split", "classes", _BASE_CLASSES),
    *("Train.weight", "Train.start_epoch", "Method.base_weight", "Method.pretrained"),
)
"""Entries that cannot change: another value would make another model, or has an effect only at the start."""

_EARLIER_NAMES = {
    **{
        "arch": "Method.arch",
        "backbone": "Method.backbone",
        "data_set": "Data.data_set",
        "fold": "Data.split",
    },
    **{"shot": "Data.shot", "epochs": _EPOCHS, "batch_size": _BATCH},
    **{"base_classes": _BASE_CLASSES, "images": _IMAGES},
}
"""Name in the states of earlier versions -> name of the entry now."""


def course_of(config: Config, fold: Fold, images: int) -> dict[str, Any]:
    """Return the entries that determine the course of a training, as plain values.

    Args:
        config: config of the training.
        fold: fold of the training.
        images: number of images in an epoch.
    """
    split = fold.classes
    settings = values(config, [Effect.NAME, *TRAINING])
    return {key_path: value for key_path, value in settings.items() if key_path not in _PLACES} | {
        _BASE_CLASSES: len(split.base),
        _IMAGES: images,
        "classes": _digest([split.base, split.novel, split.held_out]),
        "class names": _digest(split.names),
        "training images": _listed(fold.train_images),
        "validation images": _listed(fold.val_images),
    }


def resumed(snapshot: Snapshot, config: Config, seed: int) -> Progress:
    """Return the progress of a resumed run, with ``seed`` if its config now sets another seed."""
    now = config.Train.manual_seed
    if _is_earlier(snapshot):
        changed = now not in (None, snapshot.progress.seed)
    else:
        changed = now != snapshot.plan.get(_SEED)
    return replace(snapshot.progress, seed=seed) if changed else snapshot.progress


def check_course(snapshot: Snapshot, course: Course, allow: bool) -> Collection[str]:
    """Compare the course of a run so far with the course of the resumed run.

    Args:
        snapshot: snapshot of the run.
        course: course of the resumed run.
        allow: whether entries may change, if that is possible.

    Returns:
        The entries that change.

    Raises:
        CheckpointError: an entry differs that must not or cannot change.
    """
    before, log = _before(snapshot, course), get_log("train")
    changes = {key: (before[key], course.get(key)) for key in before if before[key] != course.get(key)}
    changes |= {key: (None, value) for key, value in course.items() if key not in before and _set(key, value)}
    if _is_earlier(snapshot):
        changes = {key: change for key, change in changes.items() if key in before}
        log.warning(
            "%s: is of an earlier version, which kept no learning rates, options or lists: see yourself that "
            "they are the same",
            snapshot.path,
        )
    if snapshot.progress.epoch > before.get(_EPOCHS, snapshot.progress.epoch):
        raise CheckpointError(
            f"{snapshot.path}: malformed: progress.epoch is beyond its epochs; copy it again"
        )
    changed = frozenset(changes)
    for key, unit in ((_EPOCHS, "epoch"), (_MAX_STEPS, "step")):
        was, now = (value or math.inf for value in changes.get(key, (None, None)))
        if was < now:
            log.info("going on to %s %s, not %s; rates that decay follow the new length", unit, now, was)
            del changes[key]
    if changes:
        _refuse(snapshot, changes, allow)
        log.warning("going on with changes: %s", _told(changes))
    return changed


def check_origin(snapshot: Snapshot, now: Origin, allow: bool) -> Origin:
    """Compare what a run began from with what a new training would begin from.

    The paths may be the same although the files are not, and the other way round.

    Args:
        snapshot: snapshot of the run.
        now: what a new training would begin from.
        allow: whether the run may go on although it began from something else.

    Returns:
        The origin of the run that goes on; mined labels that are read further on make another training of it.

    Raises:
        CheckpointError: the run began from something else.
    """
    hashes = {
        "base learner": (snapshot.origin.base_learner, now.base_learner),
        "mined labels": (snapshot.origin.mined_labels, now.mined_labels),
    }
    other = {
        what: (was[:8], is_now[:8])
        for what, (was, is_now) in hashes.items()
        if was is not None and is_now is not None and was != is_now
    }
    if not other:
        return snapshot.origin
    if not allow:
        raise CheckpointError(
            f"{snapshot.path}: the run began from other files, by their SHA-256: {_told(other)}; go on with "
            "it by --allow-changes, begin anew with --overwrite, or choose another folder by save_path"
        )
    get_log("train").warning("going on although the run began from other files: %s", _told(other))
    return replace(snapshot.origin, changed=snapshot.origin.changed or "mined labels" in other)


def placed(snapshot: Snapshot, progress: Progress, course: Course, steps: int) -> Progress:
    """Return the progress in epochs of ``steps`` steps, where batches or images may have changed.

    A training that ``Train.max_steps`` ended within an epoch goes on there if it is prolonged.

    Raises:
        CheckpointError: the run stands behind the end of its epoch.
    """
    before = _before(snapshot, course)
    known = _IMAGES in before and _BATCH in before
    then = before[_IMAGES] // before[_BATCH] if known else steps
    if progress.step > then:
        raise CheckpointError(f"{snapshot.path}: malformed: progress.step is beyond its epoch; copy it again")
    end = before.get(_MAX_STEPS)
    if end != course.get(_MAX_STEPS) and end is not None and progress.epoch * then > end:
        progress = replace(progress, epoch=end // then, step=end % then)
    return progress if then == steps else replace(progress, step=progress.step * steps // then)


def keeps_moments(changes: Collection[str]) -> bool:
    """Return whether the optimizer keeps its moments."""
    return _OPTIMIZER not in changes


def _refuse(snapshot: Snapshot, changes: Mapping[str, tuple[Any, Any]], allow: bool) -> None:
    """Raise if a change is not allowed or not possible."""
    fixed = {key: change for key, change in changes.items() if key in _FIXED}
    if allow and not fixed:
        return
    own = snapshot.path.with_name(RUN_CONFIG)
    hint = f" (--config {own} --opts resume auto)" if own.is_file() else ""
    if allow:
        raise CheckpointError(
            f"{snapshot.path}: cannot be changed on the way: {_told(fixed)}; go on with the run's own "
            f"settings{hint}, or start anew from its weights: --opts weight PATH"
        )
    raise CheckpointError(
        f"{snapshot.path}: the run has other settings: {_told(changes)}; go on with its own{hint}, or change "
        "them from here on by --allow-changes"
    )


def _before(snapshot: Snapshot, course: Course) -> dict[str, Any]:
    """Return the known entries of the course of the run so far, under their present names."""
    known = {key: value for key, value in snapshot.plan.items() if key.partition(".")[2] not in UNUSED}
    if _is_earlier(snapshot):
        known = {name: known[key] for key, name in _EARLIER_NAMES.items() if key in known}
        if course.get(_SEED) is not None:
            known[_SEED] = snapshot.progress.seed
    for key in (_EPOCHS, _MAX_STEPS, _BATCH, _IMAGES):
        if known.get(key) is not None and (type(known[key]) is not int or known[key] < 1):
            raise CheckpointError(f"{snapshot.path}: malformed: plan, {key} is {known[key]!r}; copy it again")
    return known


def _is_earlier(snapshot: Snapshot) -> bool:
    return "Train.base_lr" not in snapshot.plan


def _set(key_path: str, value: Any) -> bool:
    """Return whether a key that a state does not contain has another value than its default."""
    return value != default_of(key_path) or key_path.count(".") > 1  # options have no defaults here


def _told(changes: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{key} (was {was}, now {now})" for key, (was, now) in changes.items())


def _listed(images: ImageList) -> str:
    """Return the identification of a list: its length and eight hex digits."""
    return f"{len(images)} ({_digest([images.names, images.class_ids])})"


def _digest(content: Any) -> str:
    return hashlib.sha256(repr(content).encode()).hexdigest()[:8]
