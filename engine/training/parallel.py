"""Run a network for training: plain, compiled, distributed over several processes, or in bfloat16."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fewseg.model.contract import Network, Prediction
from fewseg.util import distributed
from fewseg.util.errors import UserError


def synchronised(model: Network, device: torch.device) -> Network:
    """Synchronise the BatchNorms over all GPUs, if there are several."""
    # A model that depends on its batch computes its statistics from a single episode.
    if distributed.world_size() > 1 and device.type == "cuda" and not model.batch_dependent:
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def allow_tf32(allowed: bool) -> None:
    """Set whether GPUs may round the factors of convolutions and matrix products to 10 bits (TF32)."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed


class Wrapped:
    """The network as training steps run it.

    The frozen backbone and base learner are a part of it that runs without gradients (``torch.no_grad``).
    ``torch.inference_mode`` would save no more, and nothing that learns could read their features: autograd
    refuses to save such a tensor for the backward pass.

    Args:
        model: the network.
        compiled: whether ``torch.compile`` compiles it, or the name of its mode.
        reduced: whether it runs in bfloat16 where autocast does so. Its predictions are float32 again, so all
            losses are computed in float32.

    Raises:
        UserError: the model cannot be trained by several processes.
    """

    def __init__(self, model: Network, *, compiled: bool | str = False, reduced: bool = False) -> None:
        self._kind, self._compiled, self._reduced = model.device.type, bool(compiled), reduced
        self._forward: nn.Module = model
        if compiled:
            mode = None if compiled is True else compiled
            self._forward = cast(nn.Module, torch.compile(model, mode=mode))
        if distributed.world_size() > 1 and model.alternating:
            raise UserError(
                "this method minimises its losses in alternation, which is for a single process; start "
                "it without torchrun"
            )
        if distributed.world_size() > 1:
            self._forward = DistributedDataParallel(self._forward)

    def __call__(self, batch: Any) -> Any:
        """Run the network. The result lasts until the next call, if CUDA graphs compute it."""
        if self._compiled:
            torch.compiler.cudagraph_mark_step_begin()
        if not self._reduced:
            return self._forward(batch)
        with torch.autocast(self._kind, torch.bfloat16):
            return _in_float32(self._forward(batch))

    def no_sync(self) -> AbstractContextManager[None]:
        """Return a context in which several processes do not add up their gradients."""
        forward = self._forward
        return forward.no_sync() if isinstance(forward, DistributedDataParallel) else nullcontext()


def _in_float32(result: Prediction | Tensor) -> Prediction | Tensor:
    if isinstance(result, Tensor):
        return result.float()
    parts = {name: part.float() if part.is_floating_point() else part for name, part in result.parts.items()}
    return replace(result, logits=result.logits.float(), parts=parts)
