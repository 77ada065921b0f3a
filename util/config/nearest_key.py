"""The key that was probably meant by an unknown one, for the hint in the error message."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

_SYNONYMS: dict[str, str] = {
    **dict.fromkeys(("lr", "learning_rate", "initial_lr", "lr_base"), "base_lr"),
    **dict.fromkeys(("bs", "batch", "batchsize", "train_batch_size"), "batch_size"),
    **dict.fromkeys(("test_batch_size", "val_batch_size"), "batch_size_val"),
    **dict.fromkeys(("iterations", "iters", "max_iter", "max_iters", "steps"), "max_steps"),
    **dict.fromkeys(("seed", "random_seed", "rng_seed"), "manual_seed"),
    **dict.fromkeys(("fold", "fold_id", "benchmark_fold"), "split"),
    **dict.fromkeys(("k", "kshot", "k_shot", "nshot", "n_shot", "num_shots"), "shot"),
    **dict.fromkeys(("way", "n_way", "num_ways"), "ways"),
    **dict.fromkeys(("method", "model", "meta_learner"), "arch"),
    **dict.fromkeys(("network", "encoder", "feature_extractor", "depth"), "backbone"),
    **dict.fromkeys(("dataset", "benchmark"), "data_set"),
    **dict.fromkeys(("datapath", "data_path", "data_dir", "root", "img_dir"), "data_root"),
    **dict.fromkeys(("image_size", "img_size", "crop_size", "input_size"), "train_h"),
    **dict.fromkeys(("checkpoint", "ckpt", "weights"), "weight"),
    **dict.fromkeys(("output_dir", "out_dir", "save_dir", "log_dir", "exp_dir", "exp"), "save_path"),
    **dict.fromkeys(("wd", "decay"), "weight_decay"),
    **dict.fromkeys(("nworker", "nworkers", "num_workers", "threads"), "workers"),
    **dict.fromkeys(("optim", "solver"), "optimizer"),
    **dict.fromkeys(("fp16", "mixed_precision", "half"), "amp"),
    **dict.fromkeys(("use_vgg",), "vgg"),
}
"""Name of a key in other code -> its name here."""

_MISSPELLING = 0.75
"""The least similarity of two names, at most 1, at which one counts as a misspelling of the other."""


def nearest(name: str, names: Collection[str]) -> str | None:
    """Return the one of ``names`` that was probably meant by ``name``; None where none is near.

    ``name`` may be what other code calls it, misspelt, or share whole parts with it: ``num_epochs`` is
    ``epochs``.
    """
    asked = name.lower().replace("-", "_")
    by_lower_case = {other.lower(): other for other in names}
    if asked in by_lower_case:
        return by_lower_case[asked]
    if _SYNONYMS.get(asked) in names:
        return _SYNONYMS[asked]
    misspelt = difflib.get_close_matches(asked, by_lower_case, n=1, cutoff=_MISSPELLING)
    return by_lower_case[misspelt[0]] if misspelt else _with_shared_parts(asked, names)


def _with_shared_parts(asked: str, names: Iterable[str]) -> str | None:
    """Return the nearest name whose parts include those of ``asked`` or are included in them."""
    parts = _parts(asked)
    nested = [name for name in names if parts and (parts <= _parts(name) or _parts(name) <= parts)]
    distances = {name: len(parts ^ _parts(name)) for name in nested}
    closest = [name for name, distance in distances.items() if distance == min(distances.values())]
    return closest[0] if len(closest) == 1 else None  # of several equally near names none was clearly meant


def _parts(name: str) -> frozenset[str]:
    return frozenset(part for part in name.lower().split("_") if part)
