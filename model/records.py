"""The frozen records by which a method declares its inputs, training, adaptation and publication."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from torch import Tensor, nn

BASE_FEATURE = "base"
"""Name of the frozen base learner's feature before its last activation and classifier, for methods that read
it in addition to the backbone's features. It is computed from the whole image, never from masked features."""

IMAGE_FEATURE = "image"
"""Name of the image itself, as it enters the backbone, for methods with a branch of their own."""


class SupportView(Enum):
    """The input of a meta-learner's support branch."""

    PLAIN = "the image as it is"
    MASKED_LAYER4 = (
        "the image up to the last stage of the backbone; that stage sees masked features, and its output is "
        "read only where the mask is set"
    )
    MASKED_IMAGE = "the image with everything except the object set to zero"
    MASK_CHANNEL = "the image with its mask as a fourth channel, which is zero for queries"


class AuxiliarySet(Enum):
    """Images besides the supports that a meta-learner can use."""

    NONE = "none"
    CLASS = "images with an image-level label of the way's class, in training and in testing"
    MINED = "training images with mined labels, in training only"


class TextInput(Enum):
    """What a meta-learner reads of the class names."""

    NONE = "nothing"
    WORD_VECTORS = "one word vector per class of the data set, which its option embeddings holds"


class BatchNorm(Enum):
    """Which BatchNorms normalise by their stored statistics in training and do not update them."""

    STORED = "all of them"
    STORED_IN_BACKBONE = "those of the backbone"
    BATCH = "none of them: all normalise by the batch"


class SameSize(Enum):
    """Which images of an episode must have the same height and width."""

    NONE = "none: each may have its own"
    SUPPORTS = "the supports, whose encodings are maps that are compared together"
    ALL = "the query and its supports"


@dataclass(frozen=True)
class Inputs:
    """The inputs that a meta-learner needs.

    Attributes:
        query, support: roles or names of the backbone features that it reads, ``BASE_FEATURE`` or
            ``IMAGE_FEATURE``. The steps get them under these names, those of a role of several as
            ``middle.0`` and so on.
        view: the input of its support branch.
        support_side: side in pixels of the square to which supports are resized first; None for no resizing.
        query_margin: width of the zero padding around the query in pixels.
        pixel_scale: the scale of pixel values that its networks want, a name of ``model.pixels``.
        auxiliary: images besides the supports that it can use; it must work without them too.
        text: what it reads of the class names.
        multi_way: whether it handles several ways itself. Otherwise the ways are folded into the batch axis.
        batch_dependent: whether an encoding depends on the other images of its batch.
        same_size: which images of an episode must have the same height and width.
        support_first: whether supports are encoded before the queries, which matters for running statistics.
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
    same_size: SameSize = SameSize.NONE
    support_first: bool = False

    def reading(self, *features: str) -> Inputs:
        """Return a copy that reads the same ``features`` of query and support."""
        return replace(self, query=features, support=features)


@dataclass(frozen=True)
class GroupRule:
    """Learning rate and weight decay of a group of parameters.

    Attributes:
        rate: its learning rate as a multiple of the schedule's.
        decay: whether weight decay applies to it.
    """

    rate: float = 1.0
    decay: bool = True


@dataclass(frozen=True)
class Learning:
    """Which parts of a method are trained, and how.

    Attributes:
        backbone: whether the backbone is trained with the meta-learner.
        backbone_affine: whether a trained backbone also trains the scales and offsets of its BatchNorms.
        auxiliary_gradient: whether a trained backbone gets gradients from the auxiliary images as well.
        batch_norm: which BatchNorms keep their stored statistics in training.
        separate_biases: whether the vectors of a group form a separate group, named ``<group>.bias``.
        group_rules: name of a group -> its learning rate and weight decay, if not the schedule's.
        alternating: names of losses that are minimised one after the other, each by its own optimiser step.
            Each loss may only have gradients for the parameters that its step trains. Empty if one step
            minimises the sum of all losses.
        shot_bound: child whose weights fit only one number of supports -> the option, and its value, under
            which the method works without it. Such a child may be None. A checkpoint of another number of
            supports is tested under that option, with a warning.
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
        """Return a copy in which all BatchNorms use their stored statistics, or not all of them do."""
        if stored:
            return replace(self, batch_norm=BatchNorm.STORED)
        return replace(self, batch_norm=BatchNorm.BATCH) if self.batch_norm is BatchNorm.STORED else self


@dataclass(frozen=True)
class Adaptation:
    """What test-time adaptation may change in a method.

    Attributes:
        blended: entries of the guidance that may be blended with those of another support set.
        fixed: children that adaptation does not train.
    """

    blended: tuple[str, ...]
    fixed: tuple[str, ...] = ()


class MapKind(Enum):
    """How a part of a prediction, [B,C,h,w], is shown over the query."""

    VALUES = "a heat map for each of its channels"
    MEAN = "a heat map of the mean of its channels"
    FOREGROUND = "the probability of the foreground, from logits of the background and of the classes"
    LOGITS = "for each of its channels, the probability that a logit stands for"
    ASSIGNMENT = "the label with the highest score, of one label per channel"
    BASE_CLASSES = "likewise, of the background and the fold's base classes"


@dataclass(frozen=True)
class Map:
    """A part of a prediction that can be shown as a map over the query.

    Attributes:
        part: name of the part, [B,C,h,w]; a part that a prediction lacks is not shown. ``#`` stands for the
            numbers 0, 1, 2 and so on of a series of parts.
        title: what it is called in a picture; ``#`` stands for the number within the series. The series is
            the second axis of one part, [B,n,C,h,w], if the name of the part has no ``#``; its maps have
            the same colours.
        kind: how it is shown.
        limits: lowest and highest value of the colours; None for those of the map itself.
        names: what the channels are called, if there are several; further channels have numbers.
        weights: name of a part [B,C] with a number for every channel, which is shown with it; None for none.
        first: the number of the first of a series.
    """

    part: str
    title: str
    kind: MapKind = MapKind.VALUES
    limits: tuple[float, float] | None = None
    names: tuple[str, ...] = ()
    weights: str | None = None
    first: int = 1


@dataclass(frozen=True)
class Published:
    """How the published method is composed, the names in its checkpoints, and what its figures show.

    Attributes:
        base, ensemble: names of the base learner and the ensemble that it is combined with, or None.
        backbone_variants: ``Backbone.family`` -> options of the backbone that it is built
            on, where these are not the defaults.
        names: prefix of a parameter of the meta-learner -> its prefix in published checkpoints, if it
            differs; prefixes that begin with ``backbone.``, ``base_head.`` or ``ensemble.`` refer to the
            whole model.
        files: entry by which a file is recognised, if a published checkpoint has several files -> prefix that
            the entries of this file get when the files are joined.
        extra: prefixes of entries in published checkpoints that the network does not need.
        convert: function of the meta-learner and the published entries that converts entries which the
            network stores in another form, and returns all entries; None if there are none.
        maps: the parts of a prediction that figures show as maps over the query.
        object_vector: entry of a support's encoding, [B,C] or [B,n,C] of which the last vector counts, that
            represents the object where encodings are compared; if there is no such entry, the mean of the
            deepest feature over the object does.
    """

    base: str | None = None
    ensemble: str | None = None
    backbone_variants: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    convert: Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Tensor]] | None = None
    maps: tuple[Map, ...] = ()
    object_vector: str = "prototype"
