"""Backbones whose stages ``layer0`` .. ``layer4`` run one after the other or separately."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from fewseg.model import waiting
from fewseg.model.backbone.contract import Backbone
from fewseg.model.backbone.window import Window, reach


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

    def run_stage_within(self, name: str, x: Tensor, inside: Tensor) -> Tensor:
        """See ``Backbone``. Every layer runs on the rectangle that the layers after it depend on.

        Only a CPU does so: the rectangle must be known before the layers are run, for which a GPU would be
        kept waiting, and it would break the graph of a compiled network.
        """
        layers = self.layers(name)
        if waiting.would_wait(x) or torch.compiler.is_compiling() or not self._is_local(name):
            return self.run_stage(name, x)
        wanted, grid = Window.around(inside), x.shape[-2:]
        shown, margin = Window(0, 0, *grid), sum(map(reach, layers))
        for layer in layers:
            needed = wanted.grown(margin, grid)
            x, shown = self._step(layer, needed.of(x, shown)), needed
            margin -= reach(layer)
        left, right = wanted.left, grid[1] - wanted.right
        return pad(wanted.of(x, shown), (left, right, wanted.top, grid[0] - wanted.bottom))

    def layers(self, stage: str) -> nn.Sequential:
        """Return the layers, or blocks, of a stage."""
        return cast(nn.Sequential, self.get_submodule(stage))

    def _run(self, name: str, x: Tensor, names: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the stage ``name`` on ``x``; return its output, and the outputs of the named blocks."""
        raise NotImplementedError

    def _step(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Run one of the ``layers`` of a stage, and the activation that belongs to it."""
        return layer(x)

    def _is_local(self, name: str) -> bool:
        """Return whether a stage keeps the grid, and an output depends only on inputs in ``reach`` of it."""
        before = self.spec.features[self.stages[self.stages.index(name) - 1]]
        return self.spec.features[name].stride == before.stride and not any(
            isinstance(module, nn.MaxPool2d) or (isinstance(module, nn.BatchNorm2d) and module.training)
            for module in self.layers(name).modules()
        )

    def _roles(self, signed: str) -> dict[str, tuple[str, ...]]:
        roles = {"low": ("layer2",), "middle": ("layer2", "layer3"), "high": ("layer4",), "signed": (signed,)}
        return {role: names for role, names in roles.items() if set(names) <= {*self.stages, signed}}
