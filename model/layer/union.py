"""Several supports, each with a mask of its own: the union of the masks."""

from __future__ import annotations

from torch import Tensor


def union_of_shots(shot_logits: Tensor) -> Tensor:
    """Choose at every pixel the shot that is surest of the foreground: [B,K,2,H,W] -> [B,2,H,W].

    So a pixel is foreground where it is so for any shot, and keeps the logits of one that says it.
    """
    if shot_logits.shape[1] == 1:
        return shot_logits[:, 0]
    margin = shot_logits[:, :, 1] - shot_logits[:, :, 0]
    surest = margin.argmax(1)[:, None, None].expand(-1, -1, *shot_logits.shape[2:])
    return shot_logits.gather(1, surest)[:, 0]
