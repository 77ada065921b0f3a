"""Validation during training: on the base classes in stage 1, on novel or held-out ones in stage 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch

from fewseg.dataset.classes.fold import Fold
from fewseg.engine.evaluation.encode_once import evaluate
from fewseg.engine.evaluation.scores import HEADLINE
from fewseg.engine.reports.panels import Panels
from fewseg.engine.setup.data import base_evaluation_loader, validation_episodes
from fewseg.engine.setup.interrupt import Check, nothing
from fewseg.engine.setup.loader import Loader
from fewseg.engine.setup.stage import trains_base_learner
from fewseg.engine.training.loop import Validate
from fewseg.engine.training.tensorboard import TensorBoardWriter
from fewseg.model.contract import BaseLearner, Network
from fewseg.model.fewshot import FewShotModel
from fewseg.util.config import Config
from fewseg.util.distributed import all_sum
from fewseg.util.log import get_log
from fewseg.util.metrics import IoUMeter, count_logits
from fewseg.util.progress import progress

_PICTURES = 4


@torch.inference_mode()
def score_base_learner(model: BaseLearner, loader: Loader, check: Check = nothing) -> IoUMeter:
    """Return the counts of the base classes over the images of ``loader`` and of the other processes."""
    model.eval()
    meter = IoUMeter(model.classes)
    for batch in progress(loader.batches(check), "validation", total=len(loader)):
        check()
        batch = batch.to(model.device)
        meter.add(count_logits(model(batch.image), batch.label))
    meter.counts = all_sum(meter.counts)
    return meter


def validation_of(config: Config, fold: Fold, model: Network, board: TensorBoardWriter) -> Validate | None:
    """Return the validation of the config's stage; None where no class is left to score a method on."""
    if trains_base_learner(config):
        return base_validation(config, fold, cast(BaseLearner, model))
    if not fold.for_selection().classes.novel:
        get_log("train").info("fold %d trains on all classes: there is no validation", fold.number)
        return None
    return few_shot_validation(config, fold, cast(FewShotModel, model), board)


def base_validation(config: Config, fold: Fold, model: BaseLearner) -> Validate:
    """Return the validation of stage 1: mean IoU of the base classes on all test images."""
    loader = base_evaluation_loader(config, fold)

    def validate(epoch: float, check: Check) -> tuple[float, Mapping[str, float]]:
        meter = score_base_learner(model, loader, check)
        score = meter.mean_iou(present_only=fold.protocol.leaves_absent_out)
        ious = meter.class_iou_if_tested()[1:]
        if None in ious and fold.protocol.leaves_absent_out:
            tested = sum(iou is not None for iou in ious)
            get_log("train").info("mIoU_base: %d of %d classes tested", tested, len(ious))
        return score, {"mIoU_base": score}

    return validate


def few_shot_validation(
    config: Config, fold: Fold, model: FewShotModel, board: TensorBoardWriter
) -> Validate:
    """Return the validation of stage 2: mIoU of the classes that select snapshots, and some pictures."""
    fold = fold.for_selection()
    if not fold.classes.held_out and fold.protocol.selection == "novel":
        get_log("train").warning(
            "snapshots are selected on novel classes of the test fold, as published results are; "
            "protocol_options.selection held_out_base selects on base classes instead"
        )

    def validate(epoch: float, check: Check) -> tuple[float, Mapping[str, float]]:
        episodes = validation_episodes(config, fold, int(epoch))
        panels = Panels(episodes, _PICTURES)
        cache_gib, workers = config.Test_Finetune.cache_gib, config.Train.workers
        (scores,) = evaluate(
            *(model, episodes), cache_gib=cache_gib, check=check, workers=workers, observe=panels
        )
        for name, picture in panels.pictures.items():
            board.picture(f"validation/{name}", picture, round(10 * epoch))
        metrics = scores.metrics()
        return metrics[HEADLINE], metrics

    return validate
