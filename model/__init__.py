"""Networks for few-shot semantic segmentation."""

from model.create import create_adapter, create_backbone, create_base_learner, create_model, list_models

__all__ = ["create_adapter", "create_backbone", "create_base_learner", "create_model", "list_models"]
