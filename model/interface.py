"""The former name of ``model.contract``, which published scripts import."""

from fewseg.model.contract import IGNORE, UNLABELLED, Episode, Prediction

__all__ = ["IGNORE", "UNLABELLED", "Episode", "Prediction"]
