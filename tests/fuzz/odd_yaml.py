"""YAML values that no key should take as they stand, and what a number in a config may sensibly be."""

from __future__ import annotations

import math
from typing import Any

ODD_VALUES = (
    *(
        "",
        "~",
        "None",
        "none",
        "true",
        "no",
        "auto",
        "magic",
        "layer9",
        "resnet7",
        "=",
        "<<",
        "?",
        "-",
        "'",
        "@x",
    ),
    *("-1", "0", "1", "1.5", "-0.5", "7", "64", "1000", "5000", "100000", "1e9", "1e400", "-1e-9", "1e-300"),
    *(
        ".nan",
        ".inf",
        "-.inf",
        "'nan'",
        "'1e400'",
        "12:30:45",
        "-1:30",
        "010",
        "0x1F",
        "0b11",
        "1_000",
        "9" * 5000,
    ),
    *("[]", "[[]]", "[1]", "[-1]", "[0]", "[1e9]", "[1, .nan]", "[a, b]", "[0.5, 0.5, 0.5]", "[1, 2, 3, 4]"),
    *("[0, 0, 0, 0]", "[1, 1, 1]", "[true]", f"[{'1, ' * 2000}1]", "[2, 1]", "[1, 1]", "[8, 8, 8]"),
    *("{}", "{a: 1}", "{1: 2}", "{[]: 1}", "{a: {b: {c: 1}}}", "[{a: 1}]"),
    *('"\\0"', '"a\\nb"', '"a\\u2028b"', "x" * 5000, "../../x", "/", "'{fold'", "'{0.__class__}'", "%s%n"),
    *(
        "2020-01-01",
        "2020-13-45",
        "2001-12-14t21:59:43.10-05:00",
        "!!binary aGk=",
        "!!set {a}",
        "!!omap [a: 1]",
    ),
    *(
        "!!python/object:os.system x",
        "!!timestamp 2020-01-01",
        "!!int x",
        "!!float .",
        "!!bool 3",
        "!!null 3",
    ),
    *("!!str 3", "!!seq 3", "!!map 3", "!x 3", "*nowhere", "&a [*a]", "&a {b: *a}", "[" * 300 + "]" * 300),
    *(
        "[" * 20000,
        "{a: " * 300 + "1" + "}" * 300,
        "- - - -",
        "|",
        ">\n",
        "a: b",
        "a #b",
        "\t",
        "%YAML 9",
    ),
)

BOMB = "\n".join(
    ["a: &a [x, x, x, x, x, x, x, x, x]"]
    + [f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]" for i in range(9)]
)
"""Nine lists, each of nine times the one before: 3.5 thousand million values in 500 characters."""

RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("split",), (0, 1000)),
    **dict.fromkeys(("shot", "ways", "auxiliary"), (0, 1000)),
    **dict.fromkeys(("train_h", "train_w", "val_size", "input_size", "support_side"), (1, 10000)),
    **dict.fromkeys(("scale_min", "scale_max", "query_scales"), (0.01, 20)),
    **dict.fromkeys(("rotate_min", "rotate_max"), (-360, 360)),
    **dict.fromkeys(("batch_size", "batch_size_val", "accumulate"), (1, 10000)),
    **dict.fromkeys(("base_lr",), (1e-20, 1000)),
    **dict.fromkeys(("lr",), (0, 1000)),
    **dict.fromkeys(("epochs", "stop_interval", "save_freq", "val_freq", "start_epoch"), (0, 1e5)),
    **dict.fromkeys(("max_steps",), (1, 1e9)),
    **dict.fromkeys(("index_split",), (-1, 1000)),
    **dict.fromkeys(("power",), (0, 100)),
    **dict.fromkeys(("milestones", "merge_tau", "q2s_filt_para", "change_weighting"), (0, 1)),
    **dict.fromkeys(("momentum",), (0, 0.999999)),
    **dict.fromkeys(("weight_decay",), (0, 100)),
    **dict.fromkeys(("manual_seed", "ann_seed", "seeds", "hash_seed"), (0, 2**32 - 1)),
    **dict.fromkeys(("workers",), (0, 512)),
    **dict.fromkeys(("print_freq", "panels", "save_minutes", "visualise"), (0, 1e6)),
    **dict.fromkeys(("val_episodes", "episodes"), (1, 1e6)),
    **dict.fromkeys(("cache_gib",), (1e-9, 1e5)),
    **dict.fromkeys(("clip_norm", "scale", "kappa", "similarity_scale"), (1e-9, 1e6)),
    **dict.fromkeys(("aux_weight", "aux_weight1", "aux_weight2", "sr_aux_weight1", "weighting"), (0, 1e6)),
    **dict.fromkeys(("align_weight", "support_weight", "fusion_weight", "distill_weight"), (0, 1e6)),
    **dict.fromkeys(("mining_weight", "error_prone_weight", "contrast_weight", "triplet_weight"), (0, 1e6)),
    **dict.fromkeys(("triplet_margin",), (0, 1e6)),
    **dict.fromkeys(("blocks", "levels"), (2, 4)),
    **dict.fromkeys(("folds", "shots"), (0, 1000)),
    **dict.fromkeys(("rounds", "em_rounds", "passes"), (1, 1000)),
    **dict.fromkeys(("choice",), (0, 1000)),
    **dict.fromkeys(("iterations", "regions", "region_bank", "kshot_trans_dim"), (0, 1e5)),
    **dict.fromkeys(("ppm_scales",), (1e-3, 1000)),
    **dict.fromkeys(("components",), (1, 1000)),
    **dict.fromkeys(
        ("channels", "matching_channels", "similarity_channels", "fc_dim", "code_dim"), (1, 20000)
    ),
    **dict.fromkeys(("width", "inputs"), (1, 10000)),
    **dict.fromkeys(("dilation", "fc_kernel", "cell_stride", "pool_kernel"), (1, 1000)),
    **dict.fromkeys(("pool_stride", "query_margin"), (0, 1000)),
    **dict.fromkeys(("exit_padding",), (0, 1)),
    **dict.fromkeys(("dropout", "history_drop"), (0, 1)),
    **dict.fromkeys(("background_share", "background_momentum", "foreground_share"), (0, 1)),
    **dict.fromkeys(("threshold", "region_threshold", "object_threshold"), (-1, 1)),
    **dict.fromkeys(("min_area", "min_positions"), (0, 1e9)),
}
"""Key or option -> least and greatest value that a person could mean."""


def check_value(name: str, value: Any, written: str | None = None) -> None:
    """Raise AssertionError if a value that was accepted means nothing.

    Args:
        name: of the key or option, without its section.
        value: as the program has it.
        written: as it stood in the YAML, if it stood there.
    """
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        assert name in RANGES, f"{name} is no number, but {value} was taken"
        low, high = RANGES[name]
        assert math.isfinite(value), f"{name} {value}"
        assert low <= value <= high, f"{name} {value:.3g} lies outside {low:g}..{high:g}"
        if written is not None and not written.startswith(("[", "!", "'", "{", "&")):
            assert _number(written) == value, f"{name} {written} was read as {value}"
    elif isinstance(value, str):
        assert value.isprintable(), f"{name} holds control characters: {value[:40]!r}"
        assert len(value) < 4096, f"{name} has {len(value)} characters"
        assert all(len(part) < 256 for part in value.split("/")), f"{name} is no path: {value[:40]!r}"
    elif isinstance(value, list | tuple):
        assert value or name == "milestones", f"{name} is empty"
        assert len(value) <= 100, f"{name} has {len(value)} values"
        for part in value:
            check_value(name, part)
    else:
        raise AssertionError(f"{name} is a {type(value).__name__}: {str(value)[:80]}")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise AssertionError(f"{text[:40]!r} was read as a number") from None
