"""The contract between the packages: what every part of a network must offer.

A meta-learner is three steps, two of which look at one image only (see ``docs/architecture.md``)::

    query    = meta.encode_query(features)           # one query image
    support  = meta.encode_support(features, mask)   # one support image and its mask
    guidance = meta.match(query, support)            # K support encodings against the query
    result   = meta.segment(query, guidance)         # guidance to logits

``decode`` is ``match`` then ``segment``; test-time adaptation works between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn

from fewseg.model.episode import IGNORE, UNLABELLED, Episode, Prediction
from fewseg.model.layer.resize import resize

__all__ = [
    "BASE_FEATURE",
    "IGNORE",
    "IMAGE_FEATURE",
    "UNLABELLED",
    "AuxiliarySet",
    "Backbone",
    "BaseHead",
    "BaseLearner",
    "Encoding",
    "Episode",
    "GroupRule",
    "MetaLearner",
    "Network",
    "Prediction",
    "Setting",
    "SupportView",
]

BASE_FEATURE = "base"
"""Name of the frozen base learner's feature before its last activation and classifier, for learners that read
it beside the backbone's features. Of an image as the backbone saw it: not with a masked ``layer4``."""

IMAGE_FEATURE = "image"
"""Name of the image itself, as the backbone would see it, for learners with a branch of their own."""

Encoding = dict[str, Tensor]
"""Named tensors whose first axis is the images. A tensor may be padded with zeros along its last axis."""


class SupportView(Enum):
    """What the support branch of a meta-learner is fed."""

    PLAIN = "the image as it is"
    MASKED_LAYER4 = "the image up to layer3; layer4 sees the masked layer3 features"
    MASKED_IMAGE = "the image with everything but the object set to zero"
    MASK_CHANNEL = "the image with its mask as a fourth channel, which is empty for queries"


class AuxiliarySet(Enum):
    """What images beside the supports a meta-learner can use."""

    NONE = "none"
    CLASS = "images known only to show the way's class, in training and in testing"
    MINED = "training images with mined labels, in training only"


class Backbone(nn.Module):
    """A network whose stages ``layer0`` .. ``layer4`` run one after the other.

    Features go by name: ``layer3`` is the output of a stage, ``layer3.5`` the tap of its sixth block before
    the last activation (a bottleneck's residual sum; for VGG, a convolution's raw output), and
    ``layer0.unpooled`` what goes into the pooling of a stage that ends with one.

    Attributes:
        channels: output channels of every stage.
        stages: names of the stages in order.
    """

    channels: dict[str, int]
    stages: tuple[str, ...]

    def forward(self, image: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the named features of ``image`` [B,3,H,W], running no stage beyond the last one needed."""
        wanted = frozenset(names)
        last = max(self.stages.index(name.partition(".")[0]) for name in wanted)
        features: dict[str, Tensor] = {}
        x = image
        for stage in self.stages[: last + 1]:
            x, tapped = self._run(stage, x, wanted)
            features |= tapped
            if stage in wanted:
                features[stage] = x
        return features

    def run_stage(self, name: str, x: Tensor) -> Tensor:
        """Run the one stage ``name`` on the output ``x`` of the stage before it."""
        raise NotImplementedError

    def taps(self, stage: str) -> tuple[str, ...]:
        """Return the names of the taps of ``stage``, shallow to deep."""
        raise NotImplementedError

    def _run(self, name: str, x: Tensor, wanted: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the stage ``name`` on ``x`` and return its output and those of its taps that are wanted."""
        raise NotImplementedError


class BaseHead(nn.Module):
    """The classifier of a base learner, ``layer4`` features [B,C,h,w] -> logits [B,classes,h,w]."""

    def embed(self, x: Tensor) -> Tensor:
        """Return the ``BASE_FEATURE`` of ``layer4`` features."""
        raise NotImplementedError

    def classify(self, feature: Tensor) -> Tensor:
        """Turn what ``embed`` gives into logits."""
        raise NotImplementedError


class Network(nn.Module):
    """What is trained, saved and tested as a whole: a base learner, or a few-shot model.

    A subclass names its ``losses`` and its ``param_groups``; the rest has defaults that suit a plain network.

    Attributes:
        backbone: the feature extractor.
        alternating: names of losses that are minimised one after the other, each by a step of its own; empty
            where the sum of all takes one step.
        group_rules: how groups of parameters learn that do not learn as the others.
        batch_dependent: whether an encoding depends on the other images of its batch.
    """

    backbone: Backbone
    alternating: tuple[tuple[str, ...], ...] = ()
    group_rules: Mapping[str, GroupRule] = {}
    batch_dependent: bool = False

    @property
    def holds_base_learner(self) -> bool:
        """Whether it holds the frozen head of a base learner, which was trained before."""
        return False

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    def losses_on(
        self, batch: Any, forward: Callable[[Any], Any], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the named losses on a batch of training data, whose sum is minimised.

        Args:
            batch: on the network's device.
            forward: the network, or what wraps it: compiled, or distributed over processes.
            generator: for losses that draw random pixels.
        """
        return self.losses(forward(batch), batch, generator)

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters by the name of their group."""
        raise NotImplementedError

    def adopt(self, base_learner: BaseLearner) -> None:
        """Take over the weights of a trained base learner, as far as it has the same parts.

        Raises:
            ValueError: it has not.
        """
        raise ValueError(f"{type(self).__name__} takes over no base learner")

    def start_from(self, entries: Mapping[str, Tensor]) -> None:
        """Take over what the start of a training offers beside the backbone's weights."""

    def memory_state(self) -> dict[str, Tensor]:
        """Return what training gathers beside the weights and a resumed run must have, by name."""
        return {}

    def watch_memory(self) -> Callable[[], None]:
        """Return a call that takes back what the memory gathers from now on."""
        return lambda: None

    def restore_memory(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``memory_state`` gave."""


class BaseLearner(Network):
    """A plain segmenter of the base classes; its backbone and head serve the meta-learners frozen.

    Attributes:
        backbone: the shared feature extractor.
        head: the classifier.
        classes: number of output channels, background included.
    """

    backbone: Backbone
    head: BaseHead
    classes: int

    def losses_on(
        self, batch: Any, forward: Callable[[Any], Any], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the named losses on a batch with ``image`` [B,3,H,W] and ``label`` [B,H,W]."""
        return self.losses(forward(batch.image), batch.label)


@dataclass(frozen=True)
class Setting:
    """What a meta-learner is built for.

    Attributes:
        backbone: the network whose features it will read, for their channels.
        shot: supports per way, K.
        base_classes: number of base classes of the fold.
        image_size: side of the square input in pixels.
        low_feature: backbone stage whose Gram matrices tell how alike two scenes are.
    """

    backbone: Backbone
    shot: int
    base_classes: int
    image_size: int
    low_feature: str


@dataclass(frozen=True)
class GroupRule:
    """How a group of parameters learns beside the others.

    Attributes:
        rate: its learning rate over the schedule's.
        decay: whether weight decay applies to it.
    """

    rate: float = 1.0
    decay: bool = True


class MetaLearner(nn.Module):
    """A method of few-shot segmentation on top of a backbone. It owns no device, file, schedule or sampling.

    Attributes:
        Options: frozen dataclass of its switches; the constructor takes a ``Setting`` and such options.
        query_features, support_features: names of the backbone features that it reads, or ``BASE_FEATURE``.
        support_view: what its support branch is fed.
        support_side: side of the square that supports are stretched to before that; None leaves them.
        query_margin: zeros around the query, in pixels.
        pixels: the scale of pixels that its networks want, a name of ``model.input_view``.
        auxiliary: what images beside the supports it can use; it must do without them too.
        auxiliary_gradient: whether a backbone that learns does so from the auxiliary images as well.
        multi_way: whether it handles several ways by itself. Otherwise ways arrive folded into the batch.
        trains_backbone: whether the backbone learns with it.
        batch_dependent: whether an encoding depends on the other images of its batch.
        support_first: whether supports pass the networks before the queries; running statistics remember it.
        fix_bn: whether every BatchNorm stays in evaluation mode during training.
        fix_backbone_bn: whether the backbone's do, where not all of them do.
        trains_bn: whether, where the backbone learns, the scales and offsets of its BatchNorms do.
        align_corners: how its logits are enlarged to the image.
        mixable: entries of the guidance that may be blended with those of another support set, which is
            what test-time adaptation does; empty where the method cannot be adapted that way.
        fixed_in_adaptation: children that test-time adaptation leaves as they are.
        default_base, default_ensemble: the parts that the published method is composed with, or None.
        backbone_variants: backbone family (``resnet``, ``vgg``) -> options of the backbone that the published
            method is built on, where it is not the default one.
        separate_biases: whether vectors are groups of their own, named ``<group>.bias``.
        group_rules: how groups learn that do not learn as the others.
        turns: names of losses that are minimised one after the other, each by an optimisation step of its own
            that must reach no more than it is to train; empty where the sum of all takes one step.
        shot_bound: children whose weights are bound to the number of supports, and which may be None -> the
            option and its value under which the method does without them. A checkpoint of another number of
            supports is tested so, with a warning.
        published_names: prefix of a parameter of this module -> its prefix in published checkpoints, where
            it differs; a prefix that begins with ``backbone.``, ``base_head.`` or ``ensemble.`` is one of the
            whole model's.
        published_files: an entry that tells which file it is -> prefix of that file's entries in the joined
            checkpoint, where published ones come in several files.
        published_extra: prefixes of entries of published checkpoints that the network has no use for.
    """

    Options: type
    query_features: tuple[str, ...]
    support_features: tuple[str, ...]
    support_view: SupportView = SupportView.PLAIN
    auxiliary: AuxiliarySet = AuxiliarySet.NONE
    auxiliary_gradient: bool = True
    support_side: int | None = None
    query_margin: int = 0
    pixels: str = "normalised"
    multi_way: bool = False
    trains_backbone: bool = False
    batch_dependent: bool = False
    support_first: bool = False
    fix_bn: bool = True
    fix_backbone_bn: bool = False
    trains_bn: bool = True
    align_corners: bool = True
    mixable: tuple[str, ...] = ()
    fixed_in_adaptation: tuple[str, ...] = ()
    default_base: str | None = None
    default_ensemble: str | None = None
    backbone_variants: Mapping[str, Mapping[str, object]] = {}
    separate_biases: bool = False
    group_rules: Mapping[str, GroupRule] = {}
    turns: tuple[tuple[str, ...], ...] = ()
    shot_bound: Mapping[str, tuple[str, str]] = {}
    published_names: Mapping[str, str] = {}
    published_files: Mapping[str, str] = {}
    published_extra: tuple[str, ...] = ()

    def start_from(self, backbone: Backbone, entries: Mapping[str, Tensor]) -> None:
        """Take over what the start of a training offers beside the backbone's weights.

        Args:
            backbone: it has got its weights.
            entries: of the file that they came from, by the file's names; empty after a base learner.
        """

    def read_published(self, entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return published entries with those rewritten that this network holds in another form."""
        return dict(entries)

    def encode_query(self, features: Mapping[str, Tensor]) -> Encoding:
        """Encode query images from their backbone features [B,C,h,w]."""
        raise NotImplementedError

    def encode_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        """Encode support images from their features and masks of 0, 1 and 255, int64 [B,H,W]."""
        raise NotImplementedError

    def encode_auxiliary(self, features: Mapping[str, Tensor], label: Tensor | None) -> Encoding:
        """Encode auxiliary images, seen as queries are, and their mined labels [B,H,W] where there are any.

        ``match`` finds the entries, [B,M,...], among those of the supports; so their names must differ.
        """
        raise NotImplementedError

    def learned_query(self, features: Mapping[str, Tensor]) -> Encoding:
        """Return what trained parameters reach of ``encode_query``, and little else.

        Test-time adaptation calls this over and over for the same image; so with ``learned_support``.
        """
        return self.encode_query(features)

    def learned_support(self, features: Mapping[str, Tensor], mask: Tensor) -> Encoding:
        """Return what trained parameters reach of ``encode_support``; see ``learned_query``."""
        return self.encode_support(features, mask)

    def compare(
        self, query: Encoding, support: Encoding, memory: dict[str, object] | None = None
    ) -> Encoding:
        """Return those comparisons [B,K,...] of ``match`` that involve no trained parameter, and are dear.

        Test-time adaptation adds them to support encodings that meet the same query again; ``match`` takes
        them from there. Between comparisons of the same two images under changing masks, it keeps ``memory``,
        in which a method may note what it can use again.
        """
        return {}

    def match(self, query: Encoding, support: Encoding) -> Encoding:
        """Compare B query encodings with K support encodings each ([B,K,...]); fuse them over the shots."""
        raise NotImplementedError

    def segment(self, query: Encoding, guidance: Encoding) -> Prediction:
        """Turn query encodings and guidance into a prediction at any resolution."""
        raise NotImplementedError

    def decode(self, query: Encoding, support: Encoding) -> Prediction:
        """Segment B queries from K support encodings each."""
        return self.segment(query, self.match(query, support))

    def memory_state(self) -> dict[str, Tensor]:
        """Return what training gathers beside the weights and a resumed run must have, by name."""
        return {}

    def watch_memory(self) -> Callable[[], None]:
        """Return a call that takes back what the memory gathers from now on."""
        return lambda: None

    def restore_memory(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``memory_state`` gave."""

    def enlarge(self, prediction: Prediction, size: tuple[int, int]) -> Tensor:
        """Return the logits of ``prediction`` at ``size``, the images' height and width."""
        return resize(prediction.logits, size, align_corners=self.align_corners)

    def losses(
        self, prediction: Prediction, episode: Episode, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Return the named, weighted losses of this learner's own ``prediction``; their sum is minimised.

        The loss of the prediction itself is ``main``. ``generator`` serves losses that draw random pixels.
        """
        raise NotImplementedError

    def param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters by group, in the order of the published optimizer.

        Every child is a group, unless it names groups of its own.
        """
        groups: dict[str, list[nn.Parameter]] = {}
        for name, child in self.named_children():
            own = getattr(child, "param_groups", None)
            groups |= {name: list(child.parameters())} if own is None else own()
        trained = {name: [p for p in group if p.requires_grad] for name, group in groups.items()}
        return {name: group for name, group in trained.items() if group}
