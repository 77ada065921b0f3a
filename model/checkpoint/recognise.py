"""Recognition of the network of a published checkpoint by the names and shapes of its entries."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from fewseg.model.checkpoint.misfit import Misfit, shorten
from fewseg.model.checkpoint.published import to_ours
from fewseg.model.create import (
    BACKBONES,
    BASE_LEARNERS,
    METHODS,
    create_base_learner,
    create_model,
)
from fewseg.model.records import TextInput

_BASE_BIASES = ("learner_base.1.4.bias", "base_learnear.2.bias", "cls.4.bias")
"""Names of the last entry of the base learner's classifier, in checkpoints of methods and base learners."""
_WORD_TABLE = (81, 300)
"""Shape of a table of word vectors. Checkpoints do not contain the table, so any shape can be used."""


@dataclass(frozen=True)
class Recognised:
    """The properties of a recognised checkpoint.

    Attributes:
        name: name of the method or the base learner.
        backbone: name of the backbone.
        shot: number of supports that it was trained with; 1 if the weights do not depend on it.
        base_classes: number of classes of its base learner without background; None if it has none.
        options: options of the method that follow from the shapes.
        network: the network that it fits, without the checkpoint's weights.
    """

    name: str
    backbone: str
    shot: int
    base_classes: int | None
    network: nn.Module
    options: Mapping[str, object] = field(default_factory=dict)


def recognise(state_dict: Mapping[str, Tensor]) -> Recognised:
    """Find the network whose entries are those of ``state_dict``, given under their published names.

    Raises:
        ValueError: no known network fits; the message names the nearest one and its differences.
    """
    nearest: tuple[int, str] = (len(state_dict) + 1, "")
    for candidate in _candidates({name.removeprefix("module."): value for name, value in state_dict.items()}):
        misfit = Misfit.between(candidate.network, to_ours(candidate.network, state_dict))
        if not misfit.names:
            return candidate
        kind = f"{candidate.name} with {candidate.backbone}"
        nearest = min(nearest, (len(misfit.names), f"{kind}: e.g. {shorten(misfit.names[:1])}"))
    raise ValueError(
        f"no known network has these entries; nearest is {nearest[1]} ({nearest[0]} differences)"
    )


def join_files(files: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Join the entries of a checkpoint that was published in several files.

    Raises:
        ValueError: a file is no part of a checkpoint of any known method.
    """
    markers = {
        entry: prefix for method in METHODS.values() for entry, prefix in method.published.files.items()
    }
    joined: dict[str, Tensor] = {}
    for entries in files:
        entries = {name.removeprefix("module."): value for name, value in entries.items()}
        prefix = next((markers[name] for name in entries if name in markers), None)
        if prefix is None:
            raise ValueError(
                "this file is not one of several that make up a checkpoint; convert it by itself"
            )
        joined |= {prefix + name: value for name, value in entries.items()}
    return joined


def _candidates(entries: Mapping[str, Tensor]) -> Iterator[Recognised]:
    shot, options = _shots(entries)
    classes = next((len(entries[k]) - 1 for k in _BASE_BIASES if k in entries), None)
    backbones = _backbones(entries)
    with torch.device("meta"):
        if classes is not None:
            for backbone, name in itertools.product(backbones, BASE_LEARNERS):
                base_learner = create_base_learner(name, backbone=backbone, classes=classes + 1)
                yield Recognised(name, backbone, 1, classes, base_learner)
        for name, backbone in itertools.product(METHODS, backbones):
            accepted = {option.name for option in fields(METHODS[name].Options)}
            recognised = {key: value for key, value in options.items() if key in accepted}
            reads_words = METHODS[name].inputs.text is TextInput.WORD_VECTORS
            words: dict[str, Any] = {"embeddings": torch.ones(*_WORD_TABLE)} if reads_words else {}
            try:
                network = create_model(
                    name, backbone=backbone, shot=shot, base_classes=classes or 15, **recognised, **words
                )
            except ValueError:  # a method that does not exist on this backbone
                continue
            yield Recognised(name, backbone, shot, classes, network, recognised)


def _shots(entries: Mapping[str, Tensor]) -> tuple[int, dict[str, Any]]:
    """Return K and the hidden width of the network that computes the supports' weights, if there is one."""
    if "kshot_rw.weight" in entries:
        return entries["kshot_rw.weight"].shape[1], {"kshot_trans_dim": 0}
    if "kshot_rw.0.weight" in entries:
        hidden, shot = entries["kshot_rw.0.weight"].shape[:2]
        return shot, {"kshot_trans_dim": hidden}
    return 1, {}


def _backbones(entries: Mapping[str, Tensor]) -> list[str]:
    """Return the backbones that the checkpoint may contain; all backbones if none is recognised."""
    builders: Mapping[str, Any] = BACKBONES  # partial calls of classes
    likely = [name for name, build in builders.items() if build.func.may_be_in(entries, *build.args)]
    return likely or list(BACKBONES)
