"""The base learner of BAM's family: a PSPNet trained on a fold's base classes (Zhao et al., CVPR 2017)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from fewseg.model.contract import Backbone, BaseHead, BaseLearner
from fewseg.model.layer.loss import pixel_cross_entropy
from fewseg.model.layer.pyramid_pooling import PyramidPooling
from fewseg.model.layer.resize import resize

_HIDDEN = 512
"""Channels of the published classifier; with a narrower backbone, its number of channels."""


class PyramidHead(BaseHead):
    """Pyramid pooling and a classifier on ``high`` features."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        hidden = min(_HIDDEN, channels)
        self.ppm = PyramidPooling(channels, channels // 4)
        self.cls = nn.Sequential(
            nn.Conv2d(2 * channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Dropout2d(0.1),
            nn.Conv2d(hidden, classes, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B,channels,h,w] -> logits [B,classes,h,w]."""
        return self.classify(self.embed(x))

    def embed(self, x: Tensor) -> Tensor:
        """[B,channels,h,w] -> feature [B,hidden,h,w], not yet activated."""
        convolution, normalise = self.cls[0], self.cls[1]
        assert isinstance(convolution, nn.Conv2d)  # merged with the upsampling of the pyramid
        return normalise(self.ppm.convolve(x, convolution))

    def classify(self, feature: Tensor) -> Tensor:
        """Turn the result of ``embed`` into logits [B,classes,h,w], without changing it in place."""
        return self.cls[3:](relu(feature))


class PSPNet(BaseLearner):
    """Backbone, pyramid pooling, classifier.

    Args:
        backbone: the feature extractor, with a ``high`` feature.
        classes: output channels: the background and the base classes in ascending order of their ids.
    """

    head: PyramidHead

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = classes
        self.head = PyramidHead(backbone.spec.channels("high"), classes)

    def forward(self, image: Tensor) -> Tensor:
        """Segment images [B,3,H,W] -> logits [B,classes,H,W]."""
        logits = self.head(self.backbone(image, ("high",))["high"])
        return resize(logits, image.shape[-2:])

    def losses(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Return the named losses of ``logits`` against labels [B,H,W] of 0..classes-1 and 255."""
        return {"main": pixel_cross_entropy(logits, label)}

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters by group, in the order of the published optimizer."""
        parts = {"backbone": self.backbone, "ppm": self.head.ppm, "cls": self.head.cls}
        return {name: list(part.parameters()) for name, part in parts.items()}
