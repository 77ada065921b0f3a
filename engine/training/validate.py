"""Scoring a model during training: on the base classes in stage 1, on novel ones in stage 2."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from fewseg.dataset.classes.fold import Fold
from fewseg.engine.evaluation.encode_once import evaluate
from fewseg.engine.evaluation.hooks import Check, nothing
from fewseg.engine.evaluation.scores import HEADLINE
from fewseg.engine.reports.panels import Panels
from fewseg.engine.setup.data import base_evaluation_loader, evaluation_images, validation_manifest
from fewseg.engine.setup.loader import Loader
from fewseg.engine.training.board import Board
from fewseg.engine.training.loop import Validate
from fewseg.model.contract import BaseLearner, Network
from fewseg.model.fewshot import FewShotModel
from fewseg.util.config import Config
from fewseg.util.distributed import all_sum
from fewseg.util.log import get_log
from fewseg.util.metrics import IoUMeter, count_logits
from fewseg.util.progress import progress

_PICTURES = 4


@torch.inference_mode()
def score_base_learner(
    model: BaseLearner, loader: Loader, device: torch.device, check: Check = nothing
) -> IoUMeter:
    """Count the base classes over all images of ``loader`` and those of the other processes."""
    model.eval()
    meter = IoUMeter(model.classes)
    for batch in progress(loader.batches(check), "validation", total=len(loader)):
        check()
        meter.add(count_logits(model(batch.image.to(device)), batch.label))
    meter.counts = all_sum(meter.counts)
    return meter


def validation_of(config: Config, fold: Fold, model: Network, device: torch.device, board: Board) -> Validate:
    """Return the validation of the config's stage."""
    if isinstance(model, FewShotModel):
        return few_shot_validation(config, fold, model, device, board)
    assert isinstance(model, BaseLearner)
    return base_validation(config, fold, model, device)


def base_validation(config: Config, fold: Fold, model: BaseLearner, device: torch.device) -> Validate:
    """Return the validation of stage 1: mean IoU over the base classes, all test images."""
    loader = base_evaluation_loader(config, fold)

    def validate(epoch: float, check: Check) -> tuple[float, Mapping[str, float]]:
        meter = score_base_learner(model, loader, device, check)
        score = meter.mean_iou(present_only=fold.protocol.leaves_absent_out)
        found = meter.class_iou_if_tested()[1:]
        if None in found and fold.protocol.leaves_absent_out:
            tested = sum(iou is not None for iou in found)
            get_log("train").info("mIoU_base: %d of %d classes tested", tested, len(found))
        return score, {"mIoU_base": score}

    return validate


def few_shot_validation(
    config: Config, fold: Fold, model: FewShotModel, device: torch.device, board: Board
) -> Validate:
    """Return the validation of stage 2: mIoU over the classes that select, and some pictures on the board."""
    fold = fold.for_selection()
    if not fold.split.held_out and fold.protocol.selection == "novel":
        get_log("train").warning(
            "snapshots are selected on novel classes of the test fold, as published results are; "
            "protocol_options.selection held_out_base selects on base classes instead"
        )
    images = evaluation_images(config, fold)

    def validate(epoch: float, check: Check) -> tuple[float, Mapping[str, float]]:
        manifest = validation_manifest(config, fold, int(epoch))
        panels = Panels(images, [manifest], _PICTURES, fold.split.names)
        (scores,) = evaluate(
            model,
            images,
            fold,
            [manifest],
            device=device,
            cache_gib=config.Test_Finetune.cache_gib,
            check=check,
            observe=panels,
        )
        for name, picture in panels.pictures.items():
            board.picture(f"validation/{name}", picture, round(10 * epoch))
        metrics = scores.metrics()
        return metrics[HEADLINE], metrics

    return validate
