"""Methods say which images of an episode must be of one size, and compute all other combinations."""

from __future__ import annotations

import pytest
import torch

from fewseg.model import create_model, list_models
from fewseg.model.contract import SameSize
from fewseg.model.encoding import group_encoding, stack_encodings

SIZES = ((73, 97), (105, 88))
OPTIONS = {"mianet": {"embeddings": torch.ones(21, 30)}}


@pytest.mark.parametrize("shot", [1, 2])
@pytest.mark.parametrize("method", list_models())
def test_images_of_different_sizes(method: str, shot: int) -> None:
    model = create_model(method, backbone="resnet18", shot=shot, image_size=97, **OPTIONS.get(method, {}))
    needed = model.eval().meta.inputs.same_size

    @torch.inference_mode()
    def segment() -> torch.Tensor:
        query = model.encode_query(torch.randn(1, 3, 96, 80))
        supports = []
        for size in SIZES[:shot]:
            mask = torch.zeros(1, *size, dtype=torch.int64)
            mask[:, 20:50, 20:60] = 1
            supports.append(model.encode_support(torch.randn(1, 3, *size), mask, torch.ones(1).long()))
        return model.decode(query, group_encoding(stack_encodings(supports), 1, 1, shot), (96, 80)).logits

    if needed is SameSize.NONE or (needed is SameSize.SUPPORTS and shot == 1):
        assert segment().shape == (1, 2, 96, 80)
    else:
        with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
            segment()
