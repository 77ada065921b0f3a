"""The frozen records by which a method says what it wants: inputs, learning, adaptation, publication."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from torch import Tensor, nn

BASE_FEATURE = "base"
"""Name of the frozen base learner's feature before its last activation and classifier, for learners that read
it beside the backbone's features. Of an image as the backbone saw it: not with masked features."""

IMAGE_FEATURE = "image"
"""Name of the image itself, as the backbone would see it, for learners with a branch of their own."""


class SupportView(Enum):
    """What the support branch of a meta-learner is fed."""

    PLAIN = "the image as it is"
    MASKED_LAYER4 = "the image up to the last stage of the backbone; that stage sees masked features"
    MASKED_IMAGE = "the image with everything but the object set to zero"
    MASK_CHANNEL = "the image with its mask as a fourth channel, which is empty for queries"


class AuxiliarySet(Enum):
    """What images beside the supports a meta-learner can use."""

    NONE = "none"
    CLASS = "images known only to show the way's class, in training and in testing"
    MINED = "training images with mined labels, in training only"


class TextInput(Enum):
    """What a meta-learner reads of the names of classes."""

    NONE = "nothing"
    WORD_VECTORS = "one word vector per class of the data set, which its option embeddings holds"


class BatchNorm(Enum):
    """Which BatchNorms normalise by their stored statistics during training, and leave these as they are."""

    STORED = "all of them"
    STORED_IN_BACKBONE = "those of the backbone"
    BATCH = "none of them: all normalise by the batch"


@dataclass(frozen=True)
class Inputs:
    """What a meta-learner reads and is fed.

    Attributes:
        query, support: roles or names of the backbone features that it reads, ``BASE_FEATURE`` or
            ``IMAGE_FEATURE``. The steps get them under these names, those of a role of several as
            ``middle.0`` and so on.
        view: what its support branch is fed.
        support_side: side of the square in pixels that supports are resized to before that; None leaves them.
        query_margin: width of the zero padding around the query in pixels.
        pixel_scale: the scale of pixel values that its networks want, a name of ``model.pixels``.
        auxiliary: what images beside the supports it can use; it must work without them too.
        text: what it reads of the names of classes.
        multi_way: whether it handles several ways by itself. Otherwise ways arrive folded into the batch.
        batch_dependent: whether an encoding depends on the other images of its batch.
        support_first: whether supports pass the networks before the queries, which matters for running
            statistics.
    """

    query: tuple[str, ...] = ()
    support: tuple[str, ...] = ()
    view: SupportView = SupportView.PLAIN
    support_side: int | None = None
    query_margin: int = 0
    pixel_scale: str = "normalised"
    auxiliary: AuxiliarySet = AuxiliarySet.NONE
    text: TextInput = TextInput.NONE
    multi_way: bool = False
    batch_dependent: bool = False
    support_first: bool = False

    def reading(self, *features: str) -> Inputs:
        """Return these inputs with the same ``features`` for query and support."""
        return replace(self, query=features, support=features)


@dataclass(frozen=True)
class GroupRule:
    """How a group of parameters learns beside the others.

    Attributes:
        rate: its learning rate as a multiple of the schedule's.
        decay: whether weight decay applies to it.
    """

    rate: float = 1.0
    decay: bool = True


@dataclass(frozen=True)
class Learning:
    """What of a method learns, and how.

    Attributes:
        backbone: whether the backbone learns with the meta-learner.
        backbone_affine: whether, where the backbone learns, the scales and offsets of its BatchNorms do.
        auxiliary_gradient: whether a backbone that learns does so from the auxiliary images as well.
        batch_norm: which BatchNorms keep their stored statistics during training.
        separate_biases: whether vectors are groups of their own, named ``<group>.bias``.
        group_rules: how groups learn that do not learn as the others.
        alternating: names of losses that are minimised one after the other, each by an optimisation step of
            its own that must reach no more than it is to train; empty where the sum of all takes one step.
        shot_bound: children whose weights are bound to the number of supports, and which may be None -> the
            option and its value under which the method works without them. A checkpoint of another number of
            supports is tested so, with a warning.
    """

    backbone: bool = False
    backbone_affine: bool = True
    auxiliary_gradient: bool = True
    batch_norm: BatchNorm = BatchNorm.STORED
    separate_biases: bool = False
    group_rules: Mapping[str, GroupRule] = field(default_factory=dict)
    alternating: tuple[tuple[str, ...], ...] = ()
    shot_bound: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    def with_stored_statistics(self, stored: bool) -> Learning:
        """Return this record with every BatchNorm on its stored statistics, or no longer every one."""
        if stored:
            return replace(self, batch_norm=BatchNorm.STORED)
        return replace(self, batch_norm=BatchNorm.BATCH) if self.batch_norm is BatchNorm.STORED else self


@dataclass(frozen=True)
class Adaptation:
    """What test-time adaptation may do with a method.

    Attributes:
        blended: entries of the guidance that may be blended with those of another support set.
        fixed: children that adaptation leaves as they are.
    """

    blended: tuple[str, ...]
    fixed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Published:
    """How the published method is composed, and what its checkpoints look like.

    Attributes:
        base, ensemble: the parts that it is composed with, or None.
        backbone_variants: ``Backbone.family`` -> options of the backbone that it is built
            on, where these are not the defaults.
        names: prefix of a parameter of the meta-learner -> its prefix in published checkpoints, where it
            differs; a prefix that begins with ``backbone.``, ``base_head.`` or ``ensemble.`` is one of the
            whole model's.
        files: an entry by which a file is recognised -> the prefix that the file's entries get when the
            several files of a published checkpoint are joined.
        extra: prefixes of entries of published checkpoints that the network has no use for.
        convert: takes the meta-learner and the published entries, and returns these with those rewritten that
            the network holds in another form; None where there are none.
    """

    base: str | None = None
    ensemble: str | None = None
    backbone_variants: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    convert: Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Tensor]] | None = None
