"""What published config files of this field say differently: other spellings, and keys that have no effect here."""

from __future__ import annotations

from typing import Any

SECTION_ALIASES: dict[str, str] = {
    "distributed": "Train",
    "test": "Test_Finetune",
    "finetune": "Test_Finetune",
}
"""Lower-case section names beside the four -> the section whose keys they hold."""

UNUSED: dict[str, str] = {
    # Devices and processes: torchrun starts them, the batch size is global.
    "train_gpu": "processes are started by torchrun",
    "test_gpu": "processes are started by torchrun",
    "gpu": "processes are started by torchrun",
    "gpu_id": "processes are started by torchrun",
    "sync_bn": "BatchNorm is synchronised whenever several processes train it",
    "multiprocessing_distributed": "processes are started by torchrun",
    "distributed": "processes are started by torchrun",
    "dist_url": "processes are started by torchrun",
    "dist_backend": "processes are started by torchrun",
    "world_size": "processes are started by torchrun",
    "rank": "processes are started by torchrun",
    "local_rank": "processes are started by torchrun",
    "use_apex": "mixed precision is Train.amp",
    "opt_level": "mixed precision is Train.amp",
    "keep_batchnorm_fp32": "mixed precision is Train.amp",
    "loss_scale": "mixed precision is Train.amp",
    # Pictures and files.
    "visualize": "pictures are counted by Test_Finetune.panels",
    "show": "pictures are counted by Test_Finetune.panels",
    "show_ft": "pictures are counted by Test_Finetune.panels",
    "viz": "pictures are counted by Test_Finetune.panels",
    "debug": "there is no debug mode",
    "snapshot_path": "snapshots lie in Train.save_path",
    "result_path": "results lie in Train.save_path",
    "model_path": "checkpoints are named by weight and resume",
    "save_folder": "results lie in Train.save_path",
    "has_prediction": "predictions are always made",
    "test_list": "the test list is Data.val_list",
    "names_path": "class names come with the data set",
    "colors_path": "colours come with the data set",
    # Leftovers that the published code reads nowhere, or only before a loss without gradient.
    "memo_weight": "the published code does not use it",
    "memobank": "the published code does not use it",
    "memolenth": "the published code does not use it",
    "memochannel": "the published code does not use it",
    "sr_aux_weight2": "the published code does not use it",
    "base_size": "the published code does not use it",
    "index_start": "the published code does not use it",
    "index_step": "the published code does not use it",
    "use_split_pascal": "PASCAL has one split",
    "teacher_model": "the published code does not use it",
    "cls_type": "the episode class is left out of the base map in training, as published",
    "test_num": "the number of test episodes is Test_Finetune.episodes",
}
"""Known keys of published files that change nothing here, each with the reason."""


def translate(keys: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """Rewrite the published spellings among ``keys``.

    Args:
        keys: the keys of one file with their values.

    Returns:
        Per rewritten key its name here and its value; the name is empty where the key only repeats or refines
        another one.
    """
    changed: dict[str, tuple[str, Any]] = {}
    if "layers" in keys:
        changed["layers"] = ("backbone", f"resnet{keys['layers']}")
    if _true(keys.get("vgg")):  # VGG files still carry ``layers: 50``
        changed["vgg"] = ("backbone", "vgg16")
        if "layers" in keys:
            changed["layers"] = ("", None)
    elif "vgg" in keys:
        changed["vgg"] = ("", None)
    if "use_coco" in keys:
        changed["use_coco"] = (
            "" if "data_set" in keys else "data_set",
            "coco" if _true(keys["use_coco"]) else "pascal",
        )
    if "loop_ft" in keys:
        changed["loop_ft"] = (
            "" if "adapt" in keys else "adapt",
            "eftnet" if _true(keys["loop_ft"]) else None,
        )
    return changed


TRANSLATED = ("layers", "vgg", "use_coco", "loop_ft")


def guess_arch(values: dict[str, Any]) -> str:
    """Name the method of a file without ``arch``: published scripts take it from the command line.

    Stage-1 files state more than 2 output channels; the rest is BAM unless ``--opts arch NAME`` says otherwise.
    """
    classes = values.get("classes", 2)
    return "pspnet" if isinstance(classes, int) and classes > 2 else "bam"


def _true(value: Any) -> bool:
    return str(value).strip().lower() in ("true", "1", "yes", "on")
