"""OSLSM: A. Shaban, S. Bansal, Z. Liu, I. Essa, B. Boots, "One-Shot Learning for Semantic Segmentation",
BMVC 2017, the paper that introduced PASCAL-5i.

A conditioning branch reads the support without its background and returns the parameters of a classifier,
which separates foreground and background cells of the query's feature. Each of K supports gives a classifier
of its own; a pixel is foreground if any of them says so.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, conv_transpose2d

from fewseg.model.contract import Backbone, BuildArguments, MetaLearner
from fewseg.model.encoding import Encoding
from fewseg.model.episode import IGNORE, Episode, Prediction
from fewseg.model.layer.binary import pixel_binary_loss, two_logits
from fewseg.model.meta.oslsm.weight_hash import WeightHash, hash_of_matrix
from fewseg.model.options import Between, Channels, Dropout, Seed
from fewseg.model.records import IMAGE_FEATURE, GroupRule, Inputs, Learning, Published, SupportView

_CLASSIFIER = (0, 3, 6)
"""Indices of the linear layers in torchvision's classifier of VGG16, and in ours."""


@dataclass(frozen=True)
class OSLSMOptions:
    """Options of OSLSM. The defaults are those of the published network; small machines need smaller ones.

    Attributes:
        fc_dim: width of the fully connected layers of both branches.
        code_dim: length of the code from which the classifier's parameters are hashed.
        fc_kernel: kernel size of the first fully connected layers, in cells of the feature map.
        cell_stride: distance in pixels between two cells, which is the stride of the backbone.
        query_margin: zero padding around the query, in pixels; at least cell_stride * (fc_kernel / 2 - 1).
        support_side: side in pixels of the square to which supports are resized.
        dropout: dropout rate after the fully connected layers.
        hash_seed: seed of the hash, which gives every parameter an entry of the code and a sign; checkpoints
            contain the hash itself.
        loss_reduction: the loss of an image is the ``sum`` over its pixels, as published, or their ``mean``.
        void_as_background: whether void pixels of the query are background in the loss. Published: True.
        pixels: ``normalised`` images, or ``caffe``, BGR of 0..255 minus the mean, which published weights
            need.
    """

    fc_dim: Channels = 4096
    code_dim: Channels = 1000
    fc_kernel: Annotated[int, Between(1, 64)] = 7
    cell_stride: Annotated[int, Between(1, 128)] = 32
    query_margin: Annotated[int, Between(0, 1024)] = 120
    support_side: Annotated[int, Between(1, 4096)] = 224
    dropout: Dropout = 0.5
    hash_seed: Seed = 3325006385
    loss_reduction: Literal["sum", "mean"] = "sum"
    void_as_background: bool = False
    pixels: Literal["normalised", "caffe"] = "normalised"

    def __post_init__(self) -> None:
        least = max(0, self.cell_stride * (self.fc_kernel - 2) // 2)
        if self.query_margin < least:
            raise ValueError(
                f"option 'query_margin' of oslsm must be at least {least} for fc_kernel {self.fc_kernel}, "
                f"or cells are missing at the border; got {self.query_margin}"
            )


def _read_hash(meta: nn.Module, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the hash from the published dense layers; if these are zero or missing, keep our own."""
    read = {name: value for name, value in entries.items() if not name.startswith(("rw1s.", "rb1s."))}
    dense = [entries[name].flatten(1) for name in ("rw1s.weight", "rb1s.weight") if name in entries]
    kappa, zeta = meta.get_buffer("hash.kappa"), meta.get_buffer("hash.zeta")
    if dense and any(bool(matrix.any()) for matrix in dense):
        kappa, zeta = hash_of_matrix(torch.cat(dense))
    return {"hash.kappa": kappa, "hash.zeta": zeta, **read}


class OSLSM(MetaLearner):
    """A classifier computed from the support segments the query."""

    bilinear: Tensor
    Options = OSLSMOptions
    learning = Learning(
        backbone=True,
        separate_biases=True,
        group_rules={
            "condition": GroupRule(rate=0.1),
            "condition.bias": GroupRule(rate=0.2, decay=False),
            "backbone.bias": GroupRule(rate=2.0, decay=False),
            "cells.bias": GroupRule(rate=2.0, decay=False),
        },
    )

    published = Published(
        backbone_variants={
            "vgg": {"batch_norm": False, "pool_stride": (2, 2, 2, 2, 2), "ceil_pool": True},
            "resnet": {"dilation": (1, 1, 1, 1)},
        },
        extra=("uppred_offset.",),
        convert=_read_hash,
        object_vector="weight",
    )

    def __init__(self, build: BuildArguments, options: OSLSMOptions) -> None:
        super().__init__()
        self.options = options
        self.inputs = Inputs(
            query=("high",),
            support=(IMAGE_FEATURE,),
            view=SupportView.MASKED_IMAGE,
            support_side=options.support_side,
            query_margin=options.query_margin,
            pixel_scale=options.pixels,
        )
        self.published = replace(self.published, names=_published_names(build.backbone))
        width, kernel = options.fc_dim, options.fc_kernel
        self.condition = ConditioningBranch(build.backbone, options)
        self.hash = WeightHash(options.code_dim, width + 1, options.hash_seed)
        self.cells = nn.Sequential(
            nn.Conv2d(build.backbone.spec.channels("high"), width, kernel),
            nn.ReLU(inplace=True),
            nn.Dropout(options.dropout),
            nn.Conv2d(width, width, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(options.dropout),
        )
        stride = options.cell_stride
        ramp = 1 - (torch.arange(2.0 * stride) - (stride - 0.5)).abs() / stride
        self.register_buffer("bilinear", (ramp[:, None] * ramp)[None, None], persistent=False)

    def initialise(self, backbone: Backbone, entries: Mapping[str, Tensor]) -> None:
        """Give both branches the backbone's weights and, if they fit, those of ImageNet's classifier."""
        self.condition.backbone.load_state_dict(backbone.state_dict())
        for order, index in enumerate(_CLASSIFIER):
            layers = [self.condition.classifier[index], *([self.cells[index]] if order < 2 else [])]
            for layer in layers:
                for name, own in layer.named_parameters():
                    pretrained = entries.get(f"classifier.{index}.{name}")
                    if pretrained is not None and pretrained.numel() == own.numel():
                        own.data.copy_(pretrained.view_as(own))

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        return {"feature": self.cells(features["high"])}

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        parameters = self.hash(self.condition(features[IMAGE_FEATURE]))
        return {"weight": parameters[:, :-1], "bias": parameters[:, -1:]}

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        return {"weight": support["weight"], "bias": support["bias"]}

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        cells = torch.einsum("bkc,bchw->bkhw", guidance["weight"], query["feature"])
        cells = cells + guidance["bias"].unsqueeze(-1)
        return Prediction(two_logits(cells.amax(1, keepdim=True)), {**guidance, "cell_logits": cells})

    def upsample(self, prediction: Prediction, size: tuple[int, int]) -> Tensor:
        """Upsample every shot's cells, then take the largest logit: the union of the shots' masks."""
        return two_logits(self.shot_logits(prediction, size).amax(1, keepdim=True))

    def shot_logits(self, prediction: Prediction, size: tuple[int, int]) -> Tensor:
        """Return the foreground logits of every shot at ``size``, [B,K,H,W].

        A cell's logit is distributed bilinearly around the centre of its receptive field.
        """
        cells = prediction.parts["cell_logits"]
        margin, kernel, stride = self.options.query_margin, self.options.fc_kernel, self.options.cell_stride
        expected = [-(-(side + 2 * margin) // stride) - kernel + 1 for side in size]
        if list(cells.shape[-2:]) != expected:
            raise ValueError(
                f"oslsm needs cells with a stride of {stride} pixels, {expected} for an image of "
                f"{list(size)}, and got {list(cells.shape[-2:])}; set cell_stride to the "
                "backbone's stride"
            )
        upsampled = conv_transpose2d(cells.flatten(0, 1).unsqueeze(1), self.bilinear, stride=stride)
        first = margin + stride - stride * kernel // 2
        cropped = upsampled[:, 0, first : first + size[0], first : first + size[1]]
        return cropped.unflatten(0, cells.shape[:2])

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        label = episode.ground_truth
        if self.options.void_as_background:
            label = label.masked_fill(label == IGNORE, 0)
        return {"main": pixel_binary_loss(prediction.logits, label, reduction=self.options.loss_reduction)}


class ConditioningBranch(nn.Module):
    """An image classifier, built as for ImageNet, whose outputs are used as a code.

    Args:
        backbone: the backbone, of which a copy with separate weights is the first part.
        options: the method's options, which give the widths.
    """

    def __init__(self, backbone: Backbone, options: OSLSMOptions) -> None:
        super().__init__()
        self.grid = options.fc_kernel
        self.backbone = copy.deepcopy(backbone)
        self.classifier = nn.Sequential(
            nn.Linear(backbone.spec.channels("high") * self.grid**2, options.fc_dim),
            nn.ReLU(inplace=True),
            nn.Dropout(options.dropout),
            nn.Linear(options.fc_dim, options.fc_dim),
            nn.ReLU(inplace=True),
            nn.Dropout(options.dropout),
            nn.Linear(options.fc_dim, options.code_dim),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Turn masked supports [B,3,H,W] into codes [B,code_dim]."""
        feature = self.backbone(image, ("high",))["high"]
        return self.classifier(adaptive_avg_pool2d(feature, self.grid).flatten(1))


def _published_names(backbone: Backbone) -> dict[str, str]:
    """Return the names of Caffe's layers: ``f`` is the conditioning branch, ``s`` the segmentation branch."""
    names = {f"condition.classifier.{index}": f"fc{n + 6}f" for n, index in enumerate(_CLASSIFIER)}
    names |= {"cells.0": "fc6s", "cells.3": "fc7s"}
    for ours, theirs in backbone.layer_names("caffe").items():
        names |= {f"backbone.{ours}": f"{theirs}s", f"condition.backbone.{ours}": f"{theirs}f"}
    return names
