"""Conversion between published checkpoint names and ours, and strict loading with readable differences."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from operator import attrgetter

from torch import Tensor, nn

from fewseg.model.checkpoint.misfit import Misfit, shorten
from fewseg.model.contract import BaseLearner
from fewseg.model.fewshot import FewShotModel

_MODEL_PARTS = ("backbone.", "base_head.", "ensemble.")
_MODEL_NAMES = {
    "backbone.": "",
    "base_head.ppm": "learner_base.0",
    "base_head.cls": "learner_base.1",
    "ensemble.": "",
    "meta.": "",
}
_BASE_LEARNER_NAMES = {"backbone.": "", "head.": ""}


def load_published(
    model: nn.Module, state_dict: Mapping[str, object], *, whole: bool = False
) -> dict[str, str]:
    """Load a published checkpoint into ``model``.

    Args:
        model: a ``FewShotModel``, or a base learner.
        state_dict: entries under their published names, with or without the prefix ``module.``, or the
            dictionary of a file that contains them under ``state_dict``.
        whole: see ``load_strict``.

    Returns:
        The result of ``load_strict``.

    Raises:
        ValueError: the checkpoint does not fit; the message names the missing, unexpected and misshaped
            entries, and the model is unchanged.
    """
    return load_strict(model, to_ours(model, state_dict), whole=whole)


def to_ours(model: nn.Module, state_dict: Mapping[str, object]) -> dict[str, Tensor]:
    """Rename published entries to the names of ``model``; unknown entries keep their names."""
    published = _plain(state_dict)
    if isinstance(model, BaseLearner):  # the official loader reads these copies last, so they take precedence
        copies = {f"layer{k.partition('.')[2]}": v for k, v in published.items() if k.startswith("encoder.")}
        published = {k: v for k, v in published.items() if not k.startswith("encoder.")} | copies
    elif isinstance(model, FewShotModel):
        extra = model.meta.published.extra
        published = {k: v for k, v in published.items() if not (extra and k.startswith(extra))}
        convert = model.meta.published.convert
        published = published if convert is None else convert(model.meta, published)
        published = _with_own_shot_bound(model, published)
    ours = {published_name: name for name, published_name in published_names(model).items()}
    return {ours.get(name, name): value for name, value in published.items()}


def _with_own_shot_bound(model: FewShotModel, published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename entries of shot-bound parts that the model was built without, whose names it does not list."""
    rules = {
        f"{model.meta.published.names.get(part, part)}.": part for part in model.meta.learning.shot_bound
    }
    absent = {theirs: f"meta.{part}." for theirs, part in rules.items() if _part(model, part) is None}
    ordered = sorted(absent, key=len, reverse=True)
    return {_rename(name, ordered, absent): value for name, value in published.items()}


def to_published(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename our entries to the published names; a base learner's backbone is written twice, as official code
    expects."""
    names = published_names(model)
    published = {names[name]: value for name, value in state.items()}
    if isinstance(model, BaseLearner):
        layers = {k: v for k, v in published.items() if k.startswith("layer")}
        published |= {f"encoder.{name.removeprefix('layer')}": value for name, value in layers.items()}
    return published


def published_names(model: nn.Module) -> dict[str, str]:
    """Return our name -> published name of every entry of ``model``."""
    if isinstance(model, FewShotModel):
        own = {
            k if k.startswith(_MODEL_PARTS) else f"meta.{k}": v for k, v in model.meta.published.names.items()
        }
        rules = {**_MODEL_NAMES, **own}
    else:
        rules = _BASE_LEARNER_NAMES
    ordered = sorted(rules, key=len, reverse=True)
    return {name: _rename(name, ordered, rules) for name in model.state_dict()}


def load_strict(model: nn.Module, state: Mapping[str, Tensor], *, whole: bool = False) -> dict[str, str]:
    """Load ``state`` into ``model``; all entries must fit.

    Counters of BatchNorm steps may be missing, as in old files. If the checkpoint was trained with another
    number of supports, parts that are bound to it are removed from the model; see ``Learning.shot_bound``.

    Args:
        model: a few-shot model, a base learner or a backbone.
        state: entries by the model's own names.
        whole: whether no part may be removed, because a training follows that could not train it.

    Returns:
        The options of the method, with their values, that apply because parts were removed.

    Raises:
        ValueError: as ``load_published``, and if weights are integers instead of floating-point numbers.
    """
    spare = _misfitting_parts(model, state)
    needed = {part for part in spare if whole and _part(model, part) is not None}
    left_out = tuple(f"meta.{part}." for part in spare if part not in needed)
    state = {name: value for name, value in state.items() if not name.startswith(left_out)}
    misfit = Misfit.between(model, state).without(left_out)
    if misfit.names:
        cures = [f"{_option(spare[part])} works without {part}" for part in sorted(needed)]
        cause = None if cures else misfit.likely_cause()
        differences = f"the checkpoint does not fit this network: {misfit.described()}"
        raise ValueError("; ".join(filter(None, [differences, cause, *cures])))
    _require_floating(model, state)
    present = [part for part in spare if _part(model, part) is not None]
    for part in present:
        _leave_out(model, part, spare[part])
    model.load_state_dict(state, strict=False)
    return dict(spare[part] for part in present)


def _misfitting_parts(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, tuple[str, str]]:
    """Return the shot-bound parts of the meta-learner that ``state`` does not fit, with their options."""
    parts = model.meta.learning.shot_bound if isinstance(model, FewShotModel) else {}
    wrong = Misfit.between(model, state).names if parts else ()
    return {part: parts[part] for part in parts if any(name.startswith(f"meta.{part}.") for name in wrong)}


def _part(model: nn.Module, part: str) -> nn.Module | None:
    return attrgetter(f"meta.{part}")(model)


def _option(option: tuple[str, str]) -> str:
    return f"Method.options.{' '.join(option)}"


def _leave_out(model: nn.Module, part: str, option: tuple[str, str]) -> None:
    """Remove a part of the meta-learner, which then works as under ``option``, and warn of it."""
    owner, _, child = f"meta.{part}".rpartition(".")
    setattr(model.get_submodule(owner), child, None)
    warnings.warn(
        f"the checkpoint was trained with another number of supports and has no fitting {part}: the model "
        f"works as with {_option(option)}; to use a learned {part}, train with this number of supports",
        stacklevel=4,
    )


def _require_floating(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError if weights of the network are integers in the checkpoint, that is truncated."""
    wrong = [
        f"{name} {str(state[name].dtype).removeprefix('torch.')}"
        for name, value in model.state_dict().items()
        if value.is_floating_point() and name in state and not state[name].is_floating_point()
    ]
    if wrong:
        raise ValueError(
            f"{len(wrong)} of the checkpoint's tensors are integers, but weights of this network are not "
            f"({shorten(wrong)}); use the checkpoint from which it was converted"
        )


def _rename(name: str, prefixes: list[str], rules: Mapping[str, str]) -> str:
    for prefix in prefixes:
        rest = name.removeprefix(prefix)
        if rest != name and (prefix.endswith(".") or rest[0] == "." or rest[0].isdigit()):
            return rules[prefix] + rest
    return name


def _plain(state_dict: Mapping[str, object]) -> dict[str, Tensor]:
    inner = state_dict.get("state_dict", state_dict)
    entries = {k: v for k, v in inner.items() if isinstance(v, Tensor)} if isinstance(inner, Mapping) else {}
    if not entries:
        raise ValueError("the checkpoint holds no tensors; expected a state dict, or one under 'state_dict'")
    return {name.removeprefix("module."): value for name, value in entries.items()}
