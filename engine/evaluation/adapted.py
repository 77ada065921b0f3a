"""Test-time adaptation in evaluation: every episode changes the model, for itself alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import torch

from fewseg.dataset.loading.few_shot import EvaluationImages
from fewseg.dataset.reading.transform import class_table, relabel
from fewseg.model import create_adapter
from fewseg.model.contract import Episode, Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.util.config import Config
from fewseg.util.errors import ConfigError


class Adapter(Protocol):
    """A model that learns from an episode while it segments it.

    Attributes:
        oracle: whether it sees the query's ground truth; results must say so.
    """

    oracle: bool

    def __call__(self, episode: Episode) -> Prediction:
        """Segment the episode and forget it."""


def adapter_of(config: Config, model: FewShotModel) -> Adapter | None:
    """Wrap ``model`` in the adaptation that the config asks for; None where it asks for none.

    Raises:
        ConfigError: there is no such adaptation, or the method cannot be adapted.
    """
    test = config.Test_Finetune
    if test.adapt is None:
        return None
    try:
        return create_adapter(
            test.adapt,
            model,
            rounds=test.ft_number,
            lr=test.ft_base_lr,
            power=test.ft_power,
            weighting=test.change_weighting,
            q2s_filt_para=test.q2s_filt_para,
            sr_aux_weight1=test.sr_aux_weight1,
            discrimination_mask=test.discrimination_mask,
        )
    except ValueError as failure:
        where = config.where("Test_Finetune.adapt")
        raise ConfigError(f"{where}: Test_Finetune.adapt: {failure}") from failure


def with_truth(episode: Episode, images: EvaluationImages, name: str) -> Episode:
    """Add the query's true mask, which only an oracle may see, as the network's input shows it."""
    mask = relabel(images.store.named(name)[1], class_table(episode.class_id[0].tolist()))
    return replace(episode, query_mask=torch.from_numpy(images.resize.label(mask)).long()[None])
