"""Panels of the first episodes of a run, drawn while it is evaluated."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fewseg.dataset.labels import VOID
from fewseg.dataset.loading.evaluation import EpisodeSet, PlannedEpisode
from fewseg.dataset.reading.transform import Resize, class_table, relabel
from fewseg.engine.reports.pictures import panel
from fewseg.model.contract import Prediction
from fewseg.util.metrics import resize_logits


class Panels:
    """Observes an evaluation and draws its first episodes.

    Args:
        episodes: episodes of the evaluation.
        count: number of episodes of the first manifest that are drawn.

    Attributes:
        pictures: name -> RGB panel, uint8 [H,W,3].
    """

    def __init__(self, episodes: EpisodeSet, count: int) -> None:
        self.episodes, self.count = episodes, count
        self.pictures: dict[str, np.ndarray] = {}

    def __call__(self, planned: PlannedEpisode, prediction: Prediction) -> None:
        """Draw the episode if it is one of the first ``count``."""
        if planned.manifest_index > 0 or planned.episode_index >= self.count:
            return
        spec, fold = planned.spec, self.episodes.fold
        query, mask = self.episodes.store.named(spec.query)
        truth = relabel(mask, class_table(spec.class_ids))
        predicted = label_map(prediction.logits, fold.resize, *mask.shape)
        supports = [self.episodes.annotated(*support) for support in planned.supports]
        classes = ", ".join(fold.classes.names[class_id] for class_id in spec.class_ids)
        title = f"{spec.query}: {classes}, IoU {foreground_iou(predicted, truth):.1%}"
        self.pictures[f"episode_{planned.episode_index:03d}"] = panel(
            supports, query, truth, predicted, title=title
        )


def label_map(logits: Tensor, resize: Resize, height: int, width: int) -> np.ndarray:
    """Turn the logits [1,C,S,S] of a resized image into its labels at original size, uint8 [height,width]."""
    rows, columns = resize.content(height, width)
    logits = resize_logits(logits[:, :, :rows, :columns].float(), (height, width), align_corners=False)
    return logits.argmax(1)[0].to(torch.uint8).cpu().numpy()


def foreground_iou(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Return the IoU of all classes together, without void pixels."""
    valid = truth != VOID
    hit = (predicted == truth) & (truth > 0) & valid
    either = ((predicted > 0) | (truth > 0)) & valid
    return float(hit.sum() / max(1, either.sum()))
