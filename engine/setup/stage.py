"""Which stage of a training a config describes: a base learner's (1) or a few-shot method's (2)."""

from __future__ import annotations

from fewseg.model.create import BASE_LEARNERS
from fewseg.util.config import Config
from fewseg.util.errors import ConfigError


def trains_base_learner(config: Config) -> bool:
    """Return whether the config is a base learner's, which segments only the base classes."""
    return config.Method.arch in BASE_LEARNERS


def require_few_shot(config: Config) -> None:
    """Raise ConfigError if the config is a base learner's, which takes no supports."""
    if trains_base_learner(config):
        raise ConfigError(
            f"{config.where('Method.arch')}: Method.arch: {config.Method.arch} is a base learner, which "
            "knows the base classes alone and takes no examples; give the config of a few-shot method"
        )
