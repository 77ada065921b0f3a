"""The contract between the packages: the base classes of all parts of a network.

A meta-learner is four steps, of which the first two look at one image only (see ``docs/architecture.md``)::

    query    = meta.encode_query(features)           # one query image
    support  = meta.encode_support(features, mask)   # one support image and its mask
    guidance = meta.match(query, support)            # the query against K supports
    result   = meta.segment(query, guidance)         # logits

Four frozen records declare what else it needs: ``Inputs``, ``Learning``, ``Adaptation`` and ``Published``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewseg.model.backbone.contract import Backbone
from fewseg.model.encoding import SHOT_LOGITS, Encoding
from fewseg.model.episode import IGNORE, UNLABELLED, Episode, Prediction
from fewseg.model.layer.loss import pixel_cross_entropy
from fewseg.model.layer.resize import resize
from fewseg.model.records import (
    BASE_FEATURE,
    IMAGE_FEATURE,
    Adaptation,
    AuxiliarySet,
    BatchNorm,
    GroupRule,
    Inputs,
    Learning,
    Map,
    MapKind,
    Published,
    SameSize,
    SupportView,
    TextInput,
)

__all__ = [
    "BASE_FEATURE",
    "IGNORE",
    "IMAGE_FEATURE",
    "UNLABELLED",
    "Adaptation",
    "AuxiliarySet",
    "Backbone",
    "BaseHead",
    "BaseLearner",
    "BatchNorm",
    "BuildArguments",
    "Encoding",
    "Episode",
    "GroupRule",
    "Inputs",
    "Learning",
    "Map",
    "MapKind",
    "MetaLearner",
    "Network",
    "Prediction",
    "Published",
    "SameSize",
    "SupportView",
    "TextInput",
    "TrainingMemory",
]


class TrainingMemory:
    """Data besides the weights that training gathers and a resumed training needs; empty by default."""

    def state(self) -> dict[str, Tensor]:
        """Return the content as tensors by name."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Replace the content by what ``state`` returned."""

    def watch(self) -> Callable[[], None]:
        """Return a function that removes all data added from now on."""
        return lambda: None


class BaseHead(nn.Module):
    """The classifier of a base learner, ``high`` features [B,C,h,w] -> logits [B,classes,h,w]."""

    def embed(self, x: Tensor) -> Tensor:
        """Return the ``BASE_FEATURE`` of ``high`` features."""
        raise NotImplementedError

    def classify(self, feature: Tensor) -> Tensor:
        """Turn the result of ``embed`` into logits."""
        raise NotImplementedError


class Network(nn.Module):
    """A network that is trained, saved and tested as a whole: a base learner, or a few-shot model.

    A subclass implements ``losses_on`` and ``param_groups``; the defaults of the rest suit a plain network.

    Attributes:
        backbone: the feature extractor.
    """

    backbone: Backbone

    @property
    def alternating(self) -> tuple[tuple[str, ...], ...]:
        """Names of losses that are minimised one after the other, each by its own optimiser step.

        It is empty if one step minimises the sum of all losses.
        """
        return ()

    @property
    def group_rules(self) -> Mapping[str, GroupRule]:
        """Learning rates and weight decay of groups of parameters that differ from the schedule's."""
        return {}

    @property
    def batch_dependent(self) -> bool:
        """Whether an encoding depends on the other images of its batch."""
        return False

    @property
    def memory(self) -> TrainingMemory:
        """Data besides the weights that training gathers."""
        return TrainingMemory()

    @property
    def holds_base_learner(self) -> bool:
        """Whether it contains the frozen head of a base learner, which is trained in stage 1."""
        return False

    @property
    def device(self) -> torch.device:
        """The device of its weights."""
        return next(self.parameters()).device

    def losses_on(
        self, batch: Any, forward: Callable[[Any], Any], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the named losses on a batch of training data, whose sum is minimised.

        Args:
            batch: training data on the network's device.
            forward: the network, or a wrapper of it that compiles it or distributes it over processes.
            generator: for losses that draw random pixels.
        """
        raise NotImplementedError

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters by the name of their group."""
        raise NotImplementedError

    def adopt(self, base_learner: BaseLearner) -> None:
        """Copy the weights of a trained base learner into the parts that both have.

        Raises:
            ValueError: the base learner has other parts.
        """
        raise ValueError(f"{type(self).__name__} takes over no base learner")

    def initialise(self, entries: Mapping[str, Tensor]) -> None:
        """Initialise weights other than the backbone's from pretrained ones, at the start of a training."""


class BaseLearner(Network):
    """A segmentation network of the base classes; meta-learners use its backbone and head, frozen.

    Attributes:
        backbone: the shared feature extractor.
        head: the classifier.
        classes: number of output channels, background included.
    """

    backbone: Backbone
    head: BaseHead
    classes: int

    def losses(self, logits: Tensor, label: Tensor) -> dict[str, Tensor]:
        """Return the named losses of ``logits`` against labels [B,H,W] of 0..classes-1 and 255."""
        raise NotImplementedError

    def losses_on(
        self, batch: Any, forward: Callable[[Any], Any], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the named losses on a batch with ``image`` [B,3,H,W] and ``label`` [B,H,W]."""
        return self.losses(forward(batch.image), batch.label)


@dataclass(frozen=True)
class BuildArguments:
    """The arguments with which a meta-learner is built.

    Attributes:
        backbone: the network whose features it reads; it gives their channels.
        shot: supports per way, K.
        base_classes: number of base classes of the fold.
        image_size: side of the square input in pixels.
        low_feature: feature or role whose Gram matrices measure how similar two scenes are.
    """

    backbone: Backbone
    shot: int
    base_classes: int
    image_size: int
    low_feature: str


class MetaLearner(nn.Module):
    """A method of few-shot segmentation on top of a backbone. It owns no device, file, schedule or sampling.

    The constructor takes ``BuildArguments`` and an instance of ``Options``; it may replace a record of the
    class by one that depends on them. The number of supports may decide which entries an encoding has, but
    not their values: tests with several numbers of supports share encodings.

    Attributes:
        Options: frozen dataclass of the method's options.
        inputs: the features, images and other inputs that it needs.
        learning: which parts are trained, and how.
        adaptation: what test-time adaptation may change; None if the method cannot be adapted.
        published: how the published method is composed, the names in its checkpoints, its maps for figures.
        align_corners: whether corners are aligned when its logits are upsampled, in prediction and loss.
        memory: data besides the weights that its training gathers.
    """

    Options: type
    inputs: Inputs = Inputs()
    learning: Learning = Learning()
    adaptation: Adaptation | None = None
    published: Published = Published()
    align_corners: bool = True
    memory: TrainingMemory = TrainingMemory()

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        """Encode query images from their backbone features [B,C,h,w]."""
        raise NotImplementedError

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        """Encode support images from their features and masks of 0, 1 and 255, int64 [B,H,W]."""
        raise NotImplementedError

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        """Compare B query encodings with K support encodings each ([B,K,...]); fuse the shots."""
        raise NotImplementedError

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        """Turn query encodings and guidance into a prediction at any resolution."""
        raise NotImplementedError

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the named, weighted losses of this learner's own ``prediction``; their sum is minimised.

        The loss of the prediction itself is ``main``; by default there is no other. ``generator`` serves
        losses that draw random pixels.
        """
        return {
            "main": pixel_cross_entropy(
                prediction.logits, episode.ground_truth, align_corners=self.align_corners
            )
        }

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters by group, in the order of the published optimizer.

        Every child is a group, unless it has a method ``param_groups`` of its own.
        """
        groups: dict[str, list[nn.Parameter]] = {}
        for name, child in self.named_children():
            own = getattr(child, "param_groups", None)
            groups |= {name: list(child.parameters())} if own is None else own()
        trained = {name: [p for p in group if p.requires_grad] for name, group in groups.items()}
        return {name: group for name, group in trained.items() if group}

    def upsample(self, prediction: Prediction, size: tuple[int, int]) -> Tensor:
        """Return the logits of ``prediction`` at ``size``, the images' height and width.

        If the prediction contains the logits of every shot, these are upsampled first and then joined.
        """
        shot_logits = prediction.parts.get(SHOT_LOGITS)
        if shot_logits is None:
            return resize(prediction.logits, size, align_corners=self.align_corners)
        upsampled = resize(shot_logits.flatten(0, 1), size, align_corners=self.align_corners)
        return self.join_shots(upsampled.unflatten(0, shot_logits.shape[:2]))

    def join_shots(self, shot_logits: Tensor) -> Tensor:
        """Join the logits of K shots, [B,K,2,h,w] -> [B,2,h,w]; for methods that segment with every shot."""
        raise NotImplementedError

    def encode_auxiliary(self, features: Mapping[str, Tensor], label: Tensor | None) -> Encoding:
        """Encode auxiliary images from features as of queries, and their mined labels [B,H,W], if any.

        ``match`` receives the entries, [B,M,...], together with those of the supports, so their names must
        differ.
        """
        raise NotImplementedError

    def initialise(self, backbone: Backbone, entries: Mapping[str, Tensor]) -> None:
        """Initialise further weights from pretrained ones, at the start of a training.

        Args:
            backbone: with its pretrained weights.
            entries: all entries of the file of these weights, under the file's names; empty if they come from
                a base learner.
        """

    def trainable_query(self, features: Mapping[str, Tensor]) -> Encoding:
        """Return those entries of ``encode_query`` that depend on trained parameters.

        Test-time adaptation computes them again after every step, as those of ``trainable_support``.
        """
        return self.encode_query(features)

    def trainable_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        """Return those entries of ``encode_support`` that depend on trained parameters."""
        return self.encode_support(features, mask)

    def comparisons(
        self, query: Encoding, support: Encoding, memory: dict[str, Any] | None = None
    ) -> Encoding:
        """Return expensive comparisons [B,K,...] of ``match`` that depend on no trained parameter.

        Tests and test-time adaptation compute them once per pair of images and add them to the support's
        encoding, from which ``match`` reads them. ``memory`` is kept between comparisons of the same two
        images under changing masks; a method may store results for later use in it.
        """
        return {}
