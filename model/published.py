"""The former name of ``model.checkpoint.published``, which published scripts import."""

from fewseg.model.checkpoint.published import load_published

__all__ = ["load_published"]
