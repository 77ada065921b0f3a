"""Folding BatchNorm into the convolutions before it, for networks that are not trained any more.

With its stored statistics, a BatchNorm scales and shifts every channel, so a convolution with other weights
and a bias does the work of both. Results differ by rounding only.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fewseg.model.fewshot import FewShotModel


def fold_for_testing(model: FewShotModel, *, adapted: bool = False) -> FewShotModel:
    """Fold the BatchNorms of a model that is only tested from now on, and set it to evaluation mode.

    The model is changed in place, after its weights are loaded. It cannot be trained or saved any more, and
    asking it for its ``state_dict`` raises ValueError.

    Args:
        model: the model.
        adapted: whether test-time adaptation trains its meta-learner, whose layers then stay as they are.

    Returns:
        The same model.
    """
    model.eval()
    frozen = [model.backbone] if model.base_head is None else [model.backbone, model.base_head]
    for part in frozen if adapted else [model]:
        fold_batch_norms(part)
    model.register_state_dict_pre_hook(_refuse_to_save)
    return model


def fold_batch_norms(network: nn.Module) -> None:
    """Fold every BatchNorm in ``network`` that uses its stored statistics and follows a convolution.

    A layer follows another if it is the next child of the same module: blocks and chains define their layers
    in the order in which they run them.
    """
    for module in list(network.modules()):
        for (name, layer), (next_name, norm) in pairwise(module.named_children()):
            if type(norm) is not nn.BatchNorm2d or norm.training or not isinstance(layer, nn.Conv2d):
                continue
            setattr(module, name, fuse_conv_bn_eval(layer, norm))
            setattr(module, next_name, nn.Identity())


def _refuse_to_save(model: nn.Module, *_: object) -> None:
    raise ValueError("this model's BatchNorms are folded for testing, so it cannot be saved or copied from")
