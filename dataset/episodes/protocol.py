"""The evaluation protocols of papers: how images are listed and resized, episodes drawn and results scored.

``PROTOCOLS`` holds the settings for PASCAL-5i and for any data set without its own; ``load_protocol`` applies
the changes for others. Results under different protocols must never stand in the same column.
"""

from __future__ import annotations

from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass

from fewseg.dataset.lists.image_lists import MIN_AREA
from fewseg.util.errors import ConfigError

NotNegative = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Source = Literal["own", "merged", "trainaug", "train", "val"]
LIST_FILES = {
    "merged": "voc_sbd_merge_noduplicate.txt",
    "trainaug": "trainaug.txt",
    "train": "train.txt",
    "val": "val.txt",
}
"""The file name of every list, in the folder of the lists that the config names."""


@dataclass(frozen=True, config=ConfigDict(strict=True))
class Protocol:
    """Every point in which published evaluations differ.

    Attributes:
        name: the preset that it is based on.
        novel_in_train: training images with pixels of a novel class are removed, or those pixels become
            background.
        train_images, test_images: the lists that images come from; ``own`` is the list that the config names.
        min_area: pixels at original resolution that a class must cover to be listed; 0: no minimum.
        small_classes: a class with images, but too few for an episode, is an error or left out.
        query_order: how query and class of a test episode are chosen (see ``dataset.episodes.manifest``).
        repeat_supports: supports are drawn one by one, so that an episode may hold the same one twice.
        episodes: test episodes per seed.
        seeds: seeds of the test runs.
        interleaved_folds: a COCO fold takes every fourth class instead of twenty consecutive ones.
        train_chain: augmentation of training images: ``augment`` scales, rotates, blurs, flips and crops,
            ``stretch`` resizes both sides to a square, ``stretch_flip`` also flips, ``crop`` crops or pads to
            a square at the original scale, ``crop_flip`` also flips.
        input_size: side of the network's square input in testing, in pixels.
        resize: how an image is resized to it (see ``dataset.reading.transform.Resize``).
        antialias: test images are shrunk by Pillow, which smooths, instead of OpenCV's linear interpolation.
        label_size: what a prediction is compared with: the label at ``original`` size, the same padded to a
            ``square`` with void, or the label at ``input`` size.
        ignore: void pixels of the query count in no metric; otherwise they are background.
        support_void: void pixels of a support stay void, or count as background.
        align_corners: how logits are upsampled to the label.
        count_absent: in an episode, false positives of a class count even if the query does not show it.
        absent_classes: a class without test episodes counts as IoU 0 in the mean, or is left out. By default
            it is left out wherever ``small_classes`` is ``leave_out``.
        fb_iou: the mean of foreground and background IoU is reported.
        selection: which snapshot is tested: the best on the ``novel`` classes of the test fold, the best on
            base classes that training does not use (``held_out_base``), or the ``last`` one.
        pretrained: where the backbone's weights come from.
        backbone: whether the backbone is trained.
    """

    name: str
    novel_in_train: Literal["remove", "background"] = "background"
    train_images: Source = "merged"
    test_images: Source = "val"
    min_area: NotNegative = MIN_AREA
    small_classes: Literal["error", "leave_out"] = "error"
    query_order: Literal["list", "uniform", "class", "pairs", "in_turn"] = "list"
    repeat_supports: bool = False
    episodes: Positive = 1000
    seeds: Annotated[tuple[NotNegative, ...], Field(min_length=1)] = (321,)
    interleaved_folds: bool = True
    train_chain: Literal["augment", "stretch", "stretch_flip", "crop", "crop_flip"] = "augment"
    input_size: Positive = 473
    resize: Literal["letterbox", "shrink", "stretch", "native"] = "letterbox"
    antialias: bool = False
    label_size: Literal["square", "original", "input"] = "square"
    ignore: bool = True
    support_void: Literal["keep", "background"] = "keep"
    align_corners: bool = True
    count_absent: bool = True
    absent_classes: Literal["zero", "left_out"] = "zero"
    fb_iou: bool = True
    selection: Literal["novel", "held_out_base", "last"] = "novel"
    pretrained: Literal["base_learner", "imagenet"] = "imagenet"
    backbone: Literal["frozen", "trained"] = "frozen"

    def with_overrides(self, **changes: Any) -> Protocol:
        """Return the protocol with some of its values changed.

        Raises:
            ConfigError: an unknown point, or an invalid value of a point.
        """
        known = [f.name for f in fields(self) if f.name != "name"]
        for key in changes:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
                raise ConfigError(f"protocol {self.name}: there is no point {key}{hint}")
        # No episode tests the classes left out: counted as 0, they would limit every mean.
        implied: dict[str, Any] = (
            {"absent_classes": "left_out"} if changes.get("small_classes") == "leave_out" else {}
        )
        try:
            # YAML has lists, but no tuples.
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
            changed = replace(self, **(implied | values))
        except ValidationError as error:
            first = error.errors()[0]
            point, value = first["loc"][0], first["input"]
            raise ConfigError(f"protocol {self.name}: {point} cannot be {value!r}: {first['msg']}") from None
        if changed.label_size == "square" and changed.resize not in ("letterbox", "shrink"):
            raise ConfigError(
                f"protocol {self.name}: label_size square goes with resize letterbox or shrink, not with "
                f"{changed.resize}; set label_size to original or input"
            )
        if changed.small_classes == "leave_out" and not changed.leaves_absent_out:
            raise ConfigError(
                f"protocol {self.name}: small_classes leave_out leaves classes without episodes, which "
                "absent_classes zero would count as 0 in every mean; set absent_classes to left_out, or "
                "small_classes to error"
            )
        return changed

    @property
    def leaves_absent_out(self) -> bool:
        """Whether a mean is over the tested classes only, instead of all classes."""
        return self.absent_classes == "left_out"

    def trained_under(self, other: Protocol) -> Protocol:
        """Return this protocol for testing a model that was trained under ``other``."""
        return replace(self, **{point: getattr(other, point) for point in TRAINING_POINTS})

    def difference(self, preset: Protocol | None = None) -> dict[str, tuple[Any, Any]]:
        """Return the differences from ``preset``, by default that of its name: point -> (preset, self)."""
        preset = preset or PROTOCOLS[self.name]
        pairs = ((f.name, getattr(preset, f.name), getattr(self, f.name)) for f in fields(self))
        return {key: (theirs, own) for key, theirs, own in pairs if theirs != own}


TRAINING_POINTS = (
    *("novel_in_train", "train_images", "interleaved_folds", "train_chain"),
    *("selection", "pretrained", "backbone"),
)
"""The points that are fixed once a model is trained."""

PROTOCOLS = {
    preset.name: preset
    for preset in (
        Protocol("bam", novel_in_train="remove", seeds=(510, 365, 382, 322, 988), pretrained="base_learner"),
        Protocol("pfenet", episodes=5000),
        Protocol(
            "hsnet",
            train_images="trainaug",
            min_area=0,
            query_order="pairs",
            seeds=(0,),
            train_chain="stretch",
            input_size=400,
            resize="stretch",
            label_size="input",
            support_void="background",
        ),
        Protocol(
            "panet",
            train_images="trainaug",
            test_images="trainaug",
            min_area=0,
            query_order="class",
            seeds=(1234, 1235, 1236, 1237, 1238),
            interleaved_folds=False,
            train_chain="stretch_flip",
            input_size=417,
            resize="stretch",
            label_size="input",
            support_void="background",
            align_corners=False,
            count_absent=False,
            selection="last",
            backbone="trained",
        ),
        Protocol(
            "mlc",
            train_images="own",
            query_order="uniform",
            seeds=(0, 1, 2, 3, 4),
            interleaved_folds=False,
            train_chain="crop_flip",
            resize="native",
            label_size="original",
            absent_classes="left_out",
            fb_iou=False,
            backbone="trained",
        ),
        Protocol(
            "cdfss",
            train_images="trainaug",
            min_area=0,
            query_order="in_turn",
            repeat_supports=True,
            episodes=600,
            seeds=(0, 1, 2, 3, 4),
            train_chain="stretch",
            input_size=400,
            resize="stretch",
            antialias=True,
            label_size="input",
            support_void="background",
            selection="last",
        ),
    )
}

_ON: dict[str, dict[str, dict[str, Any]]] = {
    "coco": {
        "bam": {"input_size": 641},
        "pfenet": {"input_size": 641, "episodes": 20000},
        "hsnet": {"ignore": False, "query_order": "class"},
        "panet": {"test_images": "train"},
        "mlc": {"episodes": 4000},
    },
    "fss1000": {"cdfss": {"query_order": "pairs", "episodes": 2400}},
}
"""The values of each protocol that differ on a data set."""

LISTED: dict[str, dict[str, Any]] = {"pascal": {}, "coco": {"train_images": "train"}}
"""Data sets with the lists that protocols name, and their changes; others have only ``own`` lists."""


def load_protocol(name: str, data_set: str = "pascal", **changes: Any) -> Protocol:
    """Return the protocol ``name`` for ``data_set``, with the values in ``changes``.

    Raises:
        ConfigError: an unknown protocol, an unknown point, or an invalid value of a point.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol {name}: known are {', '.join(PROTOCOLS)}")
    settings = dict(LISTED.get(data_set, {"train_images": "own", "test_images": "own"}))
    settings |= _ON.get(data_set, {}).get(name, {})
    return PROTOCOLS[name].with_overrides(**(settings | changes))
