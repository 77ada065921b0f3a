"""What papers silently disagree on, by name: how images are listed, resized, drawn, scored and selected.

``PROTOCOLS`` holds the settings for PASCAL-5i and for any data set without its own; ``load_protocol`` applies
what a protocol changes for COCO-20i. Numbers of different protocols never belong into one column.
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
"""The file of every list, in the folder that the config's lists lie in."""


@dataclass(frozen=True, config=ConfigDict(strict=True))
class Protocol:
    """Every point of comparison between published evaluations.

    Attributes:
        name: the preset that it came from.
        novel_in_train: training images with pixels of a novel class are removed, or those pixels become
            background.
        train_images, test_images: the lists that images come from; ``own`` is whatever list the config names.
        min_area: pixels at original resolution that a class must cover to be listed; 0 without that rule.
        small_classes: a class with images, but too few for an episode, is an error or left out.
        query_order: how a test episode finds query and class (see ``dataset.episodes.manifest``).
        episodes: test episodes per seed.
        seeds: seeds of the test runs.
        interleaved_folds: COCO folds take every fourth class instead of runs of twenty.
        train_chain: what becomes of training images: ``augment`` scales, rotates, blurs, flips and crops,
            ``stretch`` makes squares of them, ``stretch_flip`` also flips, ``crop`` cuts or pads to a
            square of the original scale, ``crop_flip`` also flips.
        input_size: side of the square that the network sees at test.
        resize: how an image gets there (see ``dataset.reading.transform.Resize``).
        label_size: what a prediction is compared with: the original label in a ``square`` of void, the plain
            ``original``, or the label at ``input`` size.
        ignore: void pixels of the query count in no metric; otherwise they are background.
        support_void: void pixels of a support are kept apart, or count as background.
        align_corners: how logits are enlarged to the label.
        count_absent: in an episode, false positives of a class count even if the query does not show it.
        absent_classes: a class without test episodes counts as IoU 0 in the mean, or is left out. It is left
            out wherever ``small_classes`` are, unless told otherwise.
        fb_iou: the mean of foreground and background IoU is reported.
        selection: which snapshot is tested: the best on the ``novel`` classes of the test fold, the best on
            base classes that training never asks for (``held_out_base``), or the ``last`` one.
        pretrained: where the backbone's weights come from.
        backbone: whether it learns.
    """

    name: str
    novel_in_train: Literal["remove", "background"] = "background"
    train_images: Source = "merged"
    test_images: Source = "val"
    min_area: NotNegative = MIN_AREA
    small_classes: Literal["error", "leave_out"] = "error"
    query_order: Literal["list", "uniform", "class", "pairs"] = "list"
    episodes: Positive = 1000
    seeds: Annotated[tuple[NotNegative, ...], Field(min_length=1)] = (321,)
    interleaved_folds: bool = True
    train_chain: Literal["augment", "stretch", "stretch_flip", "crop", "crop_flip"] = "augment"
    input_size: Positive = 473
    resize: Literal["letterbox", "shrink", "stretch", "native"] = "letterbox"
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
            ConfigError: an unknown point or a value that it cannot have.
        """
        known = [f.name for f in fields(self) if f.name != "name"]
        for key in changes:
            if key not in known:
                near = get_close_matches(key, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
                raise ConfigError(f"protocol {self.name}: there is no point {key}{hint}")
        # Classes that no episode may ask for cannot score: counted as 0, they would cap every mean.
        follows: dict[str, Any] = (
            {"absent_classes": "left_out"} if changes.get("small_classes") == "leave_out" else {}
        )
        try:
            # YAML knows lists only
            given = {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
            changed = replace(self, **(follows | given))
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
        """Whether means are over the classes that were tested, instead of all."""
        return self.absent_classes == "left_out"

    def trained_under(self, other: Protocol) -> Protocol:
        """Return this protocol as it tests a model that was trained under another one."""
        return replace(self, **{point: getattr(other, point) for point in TRAINING_POINTS})

    def difference(self, preset: Protocol | None = None) -> dict[str, tuple[Any, Any]]:
        """Return what differs from ``preset``, by default the one of its name: point -> (preset, own)."""
        preset = preset or PROTOCOLS[self.name]
        pairs = ((f.name, getattr(preset, f.name), getattr(self, f.name)) for f in fields(self))
        return {key: (theirs, own) for key, theirs, own in pairs if theirs != own}


TRAINING_POINTS = (
    *("novel_in_train", "train_images", "interleaved_folds", "train_chain"),
    *("selection", "pretrained", "backbone"),
)
"""The values that are settled once a model is trained."""

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
    )
}

_COCO: dict[str, dict[str, Any]] = {
    "bam": {"input_size": 641},
    "pfenet": {"input_size": 641, "episodes": 20000},
    "hsnet": {"ignore": False, "query_order": "class"},
    "panet": {"test_images": "train"},
    "mlc": {"episodes": 4000},
}
"""What protocols change for COCO-20i."""

LISTED: dict[str, dict[str, Any]] = {"pascal": {}, "coco": {"train_images": "train"}}
"""Data sets with lists that protocols name, and what these change; the others have only their own lists."""


def load_protocol(name: str, data_set: str = "pascal", **changes: Any) -> Protocol:
    """Return the protocol ``name`` as it is for ``data_set``, with the given values changed.

    Raises:
        ConfigError: an unknown protocol, an unknown point or a value that it cannot have.
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol {name}: known are {', '.join(PROTOCOLS)}")
    settings = dict(LISTED.get(data_set, {"train_images": "own", "test_images": "own"}))
    if data_set == "coco":
        settings |= _COCO.get(name, {})
    return PROTOCOLS[name].with_overrides(**(settings | changes))
