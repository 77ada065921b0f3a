"""Small networks of every method, and four episodes that they can learn by heart.

Backbones are narrow and random. A grid of four pixels per position, finer than the published one, lets coarse
logits follow the borders of small objects.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from fewseg.dataset.labels import VOID
from fewseg.dataset.shapes.scene import draw_scene
from fewseg.model import create_model
from fewseg.model.contract import Episode
from fewseg.model.fewshot import FewShotModel
from fewseg.model.pixels import MEAN, STD

SIDE, MARGIN = 49, 15
EPISODES = ((0, 25, 1), (0, 3, 4), (2, 6, 3), (2, 10, 5))
"""Index of the query's and of the support's scene, and the class, which covers at least 15 % of both."""


@dataclass(frozen=True)
class Recipe:
    """What a method needs to learn fast; ``options`` say no more than its sizes where no comment says why."""

    options: dict[str, object] = field(default_factory=lambda: {"channels": 32})
    base_lr: float = 3e-3
    dilation: tuple[int, int, int, int] = (1, 2, 2, 4)
    batch: int = 4


WORDS = torch.randn(21, 300, generator=torch.Generator().manual_seed(0))
GRIDS = (1.0, 0.5, 0.25)
RECIPES = {
    "bam": Recipe(),
    "canet": Recipe({"channels": 32, "dropout": 0.0, "history": "fresh"}),
    "fsil": Recipe({}),
    # it normalises by its batch in testing too, where that is one episode
    "fss1000": Recipe({}, batch=1),
    "hdmnet": Recipe({"channels": 32, "matching_channels": 32}),
    "hsnet": Recipe({"channels": 32}, 5e-3, dilation=(1, 2, 2, 1)),
    "mianet": Recipe({"channels": 32, "embeddings": WORDS, "ppm_scales": GRIDS}),
    "mlc": Recipe({}),
    "mlc-reconstruction": Recipe({}),
    "msanet": Recipe({"channels": 32, "similarity_channels": 16}),
    "oslsm": Recipe(
        {
            **{"fc_dim": 64, "code_dim": 32, "dropout": 0.0, "loss_reduction": "mean"},
            **{"support_side": 48, "fc_kernel": 1, "cell_stride": 4, "query_margin": 0},
        }
    ),
    "panet": Recipe({}),
    "pfenet": Recipe({"channels": 32, "ppm_scales": GRIDS}),
    # with the euclidean distance the weights of the maps saturate, and the IoU stays near 50
    "plnet": Recipe({"channels": 32, "min_positions": 4.0, "fusion_block": True, "distance": "cosine"}),
    "pmm": Recipe({"channels": 32, "dropout": 0.0}),
    # the contrast loss, whose published weight is not known, slows the start: the IoU is 63 after 200 steps
    "rare": Recipe({"channels": 32, "contrast_weight": 0.0}, 5e-3),
    "rpmm": Recipe({"channels": 32, "dropout": 0.0}),
    "sgone": Recipe(),
}


def small_model(method: str, **changes: object) -> FewShotModel:
    """Build the small network of a method."""
    recipe = RECIPES[method]
    return create_model(
        method,
        backbone="resnet18",
        backbone_options={"width": 8, "dilation": recipe.dilation},
        **{"image_size": SIDE, **recipe.options, **changes},
    )


def four_episodes() -> Episode:
    """Draw the four episodes, as one batch."""
    scenes = {index: _middle(index) for query, support, _ in EPISODES for index in (query, support)}
    masks = [[_mask(scenes[scene][1], way) for scene in pair] for *pair, way in EPISODES]
    images = [[scenes[scene][0] for scene in pair] for *pair, _ in EPISODES]
    class_id = torch.tensor([[way] for *_, way in EPISODES])
    return Episode(
        query=torch.stack([query for query, _ in images]),
        support=torch.stack([support for _, support in images])[:, None, None],
        support_mask=torch.stack([support for _, support in masks])[:, None, None],
        class_id=class_id,
        class_index=class_id - 1,
        query_mask=torch.stack([query for query, _ in masks]),
    )


def part_of(episodes: Episode, first: int, count: int) -> Episode:
    """Return some of the episodes."""
    tensors = {name: value for name, value in vars(episodes).items() if value is not None}
    return replace(episodes, **{name: value[first : first + count] for name, value in tensors.items()})


def _middle(index: int) -> tuple[Tensor, Tensor]:
    """Draw a scene and cut out its middle -> the normalised image [3,SIDE,SIDE] and class ids [SIDE,SIDE]."""
    picture, label = draw_scene(0, index, SIDE + 2 * MARGIN)
    inner = slice(MARGIN, MARGIN + SIDE)
    image = (picture[inner, inner].astype(np.float32) - MEAN) / STD
    return torch.from_numpy(image).permute(2, 0, 1).float(), torch.from_numpy(
        label[inner, inner].astype(np.int64)
    )


def _mask(label: Tensor, class_id: int) -> Tensor:
    return (label == class_id).long().masked_fill(label == VOID, VOID)
