"""A backbone that is none of ours, for tests of what backbones declare."""

from __future__ import annotations

from torch import Tensor, nn

from fewseg.model.backbone.contract import Backbone, BackboneSpec, Feature

PATCH = 14


class Patches(Backbone):
    """Three blocks over patches of 14 pixels, as a vision transformer has them: one grid and no stages."""

    family = "patches"

    def __init__(self, *, width: int = 24) -> None:
        super().__init__()
        names = ("block0", "block1", "block2")
        self.embed = nn.Conv2d(3, width, PATCH, PATCH)
        self.blocks = nn.ModuleDict({name: nn.Conv2d(width, width, 3, padding=1) for name in names})
        self.spec = BackboneSpec(
            name="patches",
            features={name: Feature(width, PATCH) for name in names},
            roles={"low": names[:1], "middle": names[:2], "high": names[2:], "signed": names[2:]},
            levels=tuple((name,) for name in names),
            side_multiple=PATCH,
            pixels="unit",
        )

    def compute(self, image: Tensor, wanted: frozenset[str]) -> dict[str, Tensor]:
        x, features = self.embed(image), {}
        for name, block in self.blocks.items():
            x = x + block(x).tanh()
            features |= {name: x} if name in wanted else {}
        return features
