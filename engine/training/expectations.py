"""Warnings before a training with few images about the scores that can be expected."""

from __future__ import annotations

from fewseg.dataset.classes.fold import Fold
from fewseg.engine.setup.pretrained import RANDOM
from fewseg.engine.setup.stage import trains_base_learner
from fewseg.util.config import Config
from fewseg.util.log import get_log

FEW_IMAGES = 500
"""Trainings with fewer images are warned about. The smallest set that is known to train from random weights
is a fold of Shapes with about 600 drawings; the smallest fold of PASCAL-5i has 2,752 photographs."""


def say_what_to_expect(config: Config, fold: Fold, images: int, origin: str) -> None:
    """Log the effect of few training images on the score, and which key changes it.

    Args:
        config: config of the training.
        fold: fold of the training.
        images: number of training images.
        origin: origin of the initial weights, see ``start_weights``.
    """
    if images >= FEW_IMAGES:
        return
    log = get_log("train")
    if origin == RANDOM:
        log.warning(
            "random weights and %d training images: expect little more than the baselines of test.py; "
            "published scores start from ImageNet weights: --opts pretrained imagenet, or PATH",
            images,
        )
    total = len(fold.train_images)
    showing = int(fold.train_areas.at_least(fold.classes.unseen).any(axis=1).sum())
    removed = config.Data.novel_in_train if trains_base_learner(config) else fold.protocol.novel_in_train
    if showing:
        log.warning(
            "novel_in_train %s: %d of %d training images show a novel class of fold %d and %s",
            *("remove" if removed == "remove" else "background", showing, total, fold.number),
            _what_follows(removed == "remove", total - showing),
        )


def _what_follows(removed: bool, others: int) -> str:
    """Return what happens to images that show a novel class, and the alternative."""
    if removed:
        return "are left out; --opts novel_in_train background keeps them, their novel classes as background"
    taught = "teach it as background, so expect it to be found less well"
    if others:
        return f"{taught}; --opts novel_in_train remove leaves the {others} others"
    return f"{taught}; none is without one, so other folds may serve better (folds.txt)"
