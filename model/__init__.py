"""Networks for few-shot semantic segmentation."""

from fewseg.alias import keep_one_module
from fewseg.model.create import (
    create_adapter,
    create_backbone,
    create_base_learner,
    create_model,
    list_models,
)

__all__ = ["create_adapter", "create_backbone", "create_base_learner", "create_model", "list_models"]

keep_one_module(__name__)
