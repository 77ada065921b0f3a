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

_PROCESSES = (
    *("train_gpu", "test_gpu", "multiprocessing_distributed"),
    *("dist_url", "dist_backend", "world_size", "rank"),
)
_UNREAD = ("memo_weight", "memobank", "memolenth", "memochannel", "sr_aux_weight2")

UNUSED: dict[str, str] = {
    **dict.fromkeys(_PROCESSES, "processes are started by torchrun"),
    "sync_bn": "BatchNorm that learns is synchronised whenever there are several processes",
    **dict.fromkeys(
        ("use_apex", "opt_level", "keep_batchnorm_fp32", "loss_scale"), "mixed precision is Train.amp"
    ),
    **dict.fromkeys(("visualize", "show", "show_ft"), "Test_Finetune.panels counts the pictures"),
    **dict.fromkeys(_UNREAD, "nothing reads it in the published code either"),
    **dict.fromkeys(("ignore_label", "padding_label"), "255 is the label of pixels that do not count"),
    "classes": "the classes follow from the data set and the fold",
    "base_data_root": "base labels are made while masks are loaded, no folder of them is read",
    "zoom_factor": "logits are always resized to the label",
    "merge": "a generalised test reports both ways to merge",
}
"""Keys that are accepted but have no effect here -> the reason."""

_ONCE_WRITTEN = ("ignore_label", "padding_label", "classes", "base_data_root", "zoom_factor", "merge")
"""Those that earlier versions of FewSeg wrote into every complete config."""

_COMPLETE = {"novel_in_train", "compile", "val_episodes", "ensemble", "pretrained", "cache_gib", "precision"}
"""Keys of FewSeg that every complete config has had, and that nobody would write down all by hand."""


def without_effect(groups: Sequence[Sequence[Entry]]) -> list[Entry]:
    """Return the entries that a user should be told have no effect.

    A complete config, which FewSeg wrote itself, is not blamed for the keys of the version that wrote it.

    Args:
        groups: the entries of every file, and those of the command line.
    """
    told: list[Entry] = []
    for group in groups:
        earlier = _ONCE_WRITTEN if {entry.key for entry in group} >= _COMPLETE else ()
        unused = (entry for entry in group if entry.key in UNUSED and entry.value is not None)
        told += (entry for entry in unused if entry.key not in earlier)
    return told


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
    default = _OPTION_DEFAULTS.get(key_path)
    return type(value) is type(default) and value == default and key_path in _OPTION_DEFAULTS


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
        return [replace(entry, section="Method", key="backbone", value=backbone)] if last else []
    if entry.key == "use_coco":
        data_set = "coco" if _is_true(entry.value) else "pascal"
        return [replace(entry, section="Data", key="data_set", value=data_set)]
    if entry.key == "loop_ft":
        adapt = "eftnet" if _is_true(entry.value) else None
        return [replace(entry, section="Test_Finetune", key="adapt", value=adapt)]
    if entry.key in _ADAPTATION:
        section, key = ADAPT_OPTIONS.split(".")
        option = replace(entry, section="", key=_ADAPTATION[entry.key][0])
        return [replace(entry, section=section, key=key, value={option.key: option})]
    return [entry]


def _backbone(network: dict[str, Any]) -> str | None:
    if _is_true(network.get("vgg")):  # VGG files still say ``layers: 50``
        return "vgg16"
    return f"resnet{network['layers']}" if "layers" in network else None


def _is_true(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "1", "yes", "on")
