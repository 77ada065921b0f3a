"""The keys of published config files that have another name, or no effect, here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fewseg.util.config.file import Entry

SECTION_ALIASES: dict[str, str] = {"distributed": "Train"}
"""Lower-case names of published sections -> the section that takes their keys."""

ADAPT_OPTIONS = "Test_Finetune.adapt_options"

_ADAPTATION: dict[str, tuple[str, Any]] = {
    "ft_number": ("rounds", 5),
    "ft_base_lr": ("lr", 0.005),
    "ft_power": ("power", 0.9),
    "change_weighting": ("weighting", [0.8, 0.2]),
    "q2s_filt_para": ("q2s_filt_para", 0.2),
    "sr_aux_weight1": ("sr_aux_weight1", 1.0),
    "discrimination_mask": ("discrimination_mask", "pseudo"),
}
"""Key of EFTNet's files -> the option of the adaptation that it sets, and that option's default.

A complete config of an earlier version of FewSeg states the defaults too; they are left out when it is read.
"""

_OPTION_DEFAULTS = {f"{ADAPT_OPTIONS}.{option}": default for option, default in _ADAPTATION.values()}

SPELLINGS: tuple[str, ...] = ("layers", "vgg", "use_coco", "loop_ft", *_ADAPTATION)
"""Published keys that have another name here.

``layers`` and ``vgg`` are ``backbone``, ``use_coco`` is ``data_set``, ``loop_ft`` is ``adapt``; others are
options of the adaptation.
"""

_TORCHRUN = "processes are started by torchrun"
_AMP = "mixed precision is Train.amp"
_PANELS = "Test_Finetune.panels counts the pictures"
_UNREAD = "nothing reads it in the published code either"
_VOID = "255 is the label of pixels that do not count"

UNUSED: dict[str, str] = {
    "train_gpu": _TORCHRUN,
    "test_gpu": _TORCHRUN,
    "multiprocessing_distributed": _TORCHRUN,
    "dist_url": _TORCHRUN,
    "dist_backend": _TORCHRUN,
    "world_size": _TORCHRUN,
    "rank": _TORCHRUN,
    "sync_bn": "BatchNorm that learns is synchronised whenever there are several processes",
    "use_apex": _AMP,
    "opt_level": _AMP,
    "keep_batchnorm_fp32": _AMP,
    "loss_scale": _AMP,
    "visualize": _PANELS,
    "show": _PANELS,
    "show_ft": _PANELS,
    "memo_weight": _UNREAD,
    "memobank": _UNREAD,
    "memolenth": _UNREAD,
    "memochannel": _UNREAD,
    "sr_aux_weight2": _UNREAD,
    "ignore_label": _VOID,
    "padding_label": _VOID,
    "classes": "the classes follow from the data set and the fold",
    "base_data_root": "base labels are made while masks are loaded, no folder of them is read",
    "zoom_factor": "logits are always resized to the label",
    "merge": "a generalised test reports both ways to merge",
}
"""Keys that are accepted but have no effect here -> the reason."""


def translate(groups: Sequence[Sequence[Entry]]) -> list[list[Entry]]:
    """Return groups of entries with the published names of keys replaced by FewSeg's.

    The last one of ``layers`` and ``vgg`` becomes ``backbone``.

    Args:
        groups: the entries of every file, deepest base first, and those of the command line.
    """
    network = [entry for group in groups for entry in group if entry.key in ("layers", "vgg")]
    return [[new for entry in group for new in _translated(entry, network)] for group in groups]


def is_default(key_path: str, value: Any) -> bool:
    """Return whether an option of the adaptation has its default value, which need not be stated."""
    return key_path in _OPTION_DEFAULTS and value == _OPTION_DEFAULTS[key_path]


def guess_arch(values: dict[str, dict[str, Any]], classes: Any) -> str:
    """Name the method of a file without ``arch``, which published scripts take from the command line.

    The first rule that fits decides: more than 2 output channels (stage 1), EFTNet's adaptation, PFENet's
    pyramid; otherwise the method is BAM.

    Args:
        values: section -> key -> value.
        classes: the published key for the number of output channels; None where it is not set.
    """
    if isinstance(classes, int) and classes > 2:
        return "pspnet"
    if values["Test_Finetune"].get("adapt") == "eftnet":  # published for MSANet's checkpoints only
        return "msanet"
    return "pfenet" if "ppm_scales" in values["Method"] else "bam"


def _translated(entry: Entry, network: Sequence[Entry]) -> list[Entry]:
    if entry.key in ("layers", "vgg"):
        backbone = _backbone({other.key: other.value for other in network})
        last = entry is network[-1] and backbone is not None
        return [Entry("Method", "backbone", backbone, entry.source)] if last else []
    if entry.key == "use_coco":
        return [Entry("Data", "data_set", "coco" if _is_true(entry.value) else "pascal", entry.source)]
    if entry.key == "loop_ft":
        return [Entry("Test_Finetune", "adapt", "eftnet" if _is_true(entry.value) else None, entry.source)]
    if entry.key in _ADAPTATION:
        section, key = ADAPT_OPTIONS.split(".")
        option = _ADAPTATION[entry.key][0]
        return [Entry(section, key, {option: replace(entry, section="", key=option)}, entry.source)]
    return [entry]


def _backbone(network: dict[str, Any]) -> str | None:
    if _is_true(network.get("vgg")):  # VGG files still say ``layers: 50``
        return "vgg16"
    return f"resnet{network['layers']}" if "layers" in network else None


def _is_true(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "1", "yes", "on")
