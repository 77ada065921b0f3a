"""Which key was meant by a name that is none: for the hint behind "unknown key"."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

_SYNONYMS: dict[str, str] = {
    **dict.fromkeys(("lr", "learning_rate", "initial_lr", "lr_base"), "base_lr"),
    **dict.fromkeys(("bs", "batch", "batchsize", "train_batch_size"), "batch_size"),
    **dict.fromkeys(("test_batch_size", "val_batch_size"), "batch_size_val"),
    **dict.fromkeys(("iterations", "iters", "max_iter", "max_iters", "steps", "max_steps"), "epochs"),
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
"""What other code calls a key of ours."""

_TYPING_ERROR = 0.75
"""How alike two names must be, of 1, for one to be a slip of the other."""


def nearest(name: str, known: Collection[str]) -> str | None:
    """Return which of the known names was meant, if any is near.

    A name that other code has for it, a slip of the pen, or one that shares whole parts: ``num_epochs`` is
    ``epochs``.
    """
    asked = name.lower().replace("-", "_")
    by_lower_case = {other.lower(): other for other in known}
    if asked in by_lower_case:
        return by_lower_case[asked]
    if _SYNONYMS.get(asked) in known:
        return _SYNONYMS[asked]
    slips = difflib.get_close_matches(asked, by_lower_case, n=1, cutoff=_TYPING_ERROR)
    return by_lower_case[slips[0]] if slips else _with_shared_parts(asked, known)


def _with_shared_parts(asked: str, known: Iterable[str]) -> str | None:
    """Return the name that has all parts of the other one, or all of whose parts the other one has."""
    parts = _parts(asked)
    alike = [name for name in known if parts and (parts <= _parts(name) or _parts(name) <= parts)]
    closest = min((len(parts ^ _parts(name)) for name in alike), default=0)
    found = [name for name in alike if len(parts ^ _parts(name)) == closest]
    return found[0] if len(found) == 1 else None  # several are equally near: none is


def _parts(name: str) -> frozenset[str]:
    return frozenset(part for part in name.lower().split("_") if part)
