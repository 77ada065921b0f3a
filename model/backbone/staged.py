"""Backbones whose stages ``layer0`` .. ``layer4`` run one after the other or separately."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from fewseg.model.backbone.contract import Backbone


class StagedBackbone(Backbone):
    """A network in five stages, or in four without ``layer4``.

    Names of features: ``layer3`` is the output of a stage, ``layer3.5`` the output of its sixth block before
    the last activation (a bottleneck's residual sum; for VGG, a convolution's raw output), and
    ``layer0.unpooled`` the input of the pooling of a stage that ends with one.

    Attributes:
        stages: names of the stages in order.
    """

    stages: tuple[str, ...]

    def compute(self, image: Tensor, names: frozenset[str]) -> dict[str, Tensor]:
        last = max(self.stages.index(name.partition(".")[0]) for name in names)
        features: dict[str, Tensor] = {}
        x = image
        for stage in self.stages[: last + 1]:
            x, tapped = self._run(stage, x, names)
            features |= tapped
            if stage in names:
                features[stage] = x
        return features

    def run_stage(self, name: str, x: Tensor) -> Tensor:
        return self._run(name, x, frozenset())[0]

    def layers(self, stage: str) -> nn.Sequential:
        """Return the layers, or blocks, of a stage."""
        return cast(nn.Sequential, self.get_submodule(stage))

    def _run(self, name: str, x: Tensor, names: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the stage ``name`` on ``x``; return its output, and the outputs of the named blocks."""
        raise NotImplementedError

    def _roles(self, signed: str) -> dict[str, tuple[str, ...]]:
        roles = {"low": ("layer2",), "middle": ("layer2", "layer3"), "high": ("layer4",), "signed": (signed,)}
        return {role: names for role, names in roles.items() if set(names) <= {*self.stages, signed}}
