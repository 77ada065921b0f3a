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
from fewseg.model.options import OptionError
from fewseg.util.config import Config
from fewseg.util.errors import ConfigError
from fewseg.util.log import get_log


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
        ConfigError: there is no such adaptation or no such option of it, the method cannot be adapted, or the
            precision is reduced.
    """
    test = config.Test_Finetune
    if test.adapt is None:
        if test.adapt_options:
            get_log("test").info("Test_Finetune.adapt_options have no effect: adapt is not set")
        return None
    if test.precision != "float32":
        raise ConfigError(
            f"{config.where('Test_Finetune.precision')}: Test_Finetune.precision: {test.precision} cannot be "
            f"combined with adapt: {test.adapt}, which learns from the predictions and whose gradients need "
            "float32; leave out one of the two keys"
        )
    try:
        return create_adapter(test.adapt, model, **test.adapt_options)
    except ValueError as failure:
        key = "Test_Finetune.adapt"
        if isinstance(failure, OptionError) and failure.key.startswith("options."):
            key += f"_{failure.key}"
        raise ConfigError(f"{config.where(key)}: {key}: {failure}") from failure


def with_truth(episode: Episode, images: EvaluationImages, name: str) -> Episode:
    """Add the query's true mask, which only an oracle may see, as the network's input shows it."""
    mask = relabel(images.store.named(name)[1], class_table(episode.class_id[0].tolist()))
    return replace(episode, query_mask=torch.from_numpy(images.resize.label(mask)).long()[None])
