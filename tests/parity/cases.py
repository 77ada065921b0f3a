"""Read the recorded runs of the published implementations.

``recorded/<method>/<variant>`` holds a manifest (the published checkpoint layout) and cases: ``<case>.json``
with inputs, losses and gradients, ``<case>.safetensors`` with thinned arrays. Where ``../shared/parity`` lies
beside the checkout, a case holds the whole arrays too, and every comparison is made with both.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from tests.parity import inputs
from tests.parity.storage import Arrays, unpack

RECORDED = Path(__file__).resolve().parent / "recorded"
WHOLE = RECORDED.parents[3] / "shared" / "parity"
MANIFEST = "manifest"
TABLES = "embeddings"

cases_read: set[tuple[str, bool]] = set()
"""Cases whose figures the running test has read, as (name, whether the whole arrays were there)."""


@dataclass(frozen=True)
class Figures:
    """A recorded array: thinned, NaN where nothing was kept, and whole where the full set is there."""

    forms: tuple[np.ndarray, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.forms[0].shape

    def __getitem__(self, place: object) -> Figures:
        return self.map(lambda form: form[place])

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> Figures:
        """Return what ``change`` makes of the array, such as a difference of parts."""
        return Figures(tuple(change(form) for form in self.forms))

    def whole(self) -> np.ndarray:
        """Return an array that goes into a run, not only into a comparison."""
        if np.isnan(self.forms[0]).any():
            raise ValueError("the thinned record lacks entries of an array that the run needs as a whole")
        return self.forms[0]


@dataclass(frozen=True)
class Case:
    """One recorded run."""

    name: str
    contents: dict
    thinned: Arrays
    whole: Arrays | None

    @property
    def meta(self) -> dict:
        """The json as it stands; its notes say what each array is."""
        cases_read.add((self.name, self.whole is not None))
        return self.contents

    @property
    def arrays(self) -> dict[str, Figures]:
        cases_read.add((self.name, self.whole is not None))
        forms = [self.thinned] if self.whole is None else [self.thinned, self.whole]
        return {name: Figures(tuple(form[name] for form in forms)) for name in self.thinned}

    @property
    def shot(self) -> int:
        if "episode" in self.contents:
            return len(self.contents["episode"]["support"][0])
        return self.contents.get("shots", 1)

    def episode(self) -> Arrays:
        """Return the inputs, see ``make_episode``."""
        return make_episode(self.contents["episode"])


def make_episode(spec: dict) -> Arrays:
    """Make the inputs that a record names.

    Returns:
        query [B,3,H,W], support [B,N,K,3,H,W], support_mask [B,N,K,H,W] of 0, 1, 255 and, where the record
        has them, query_mask [B,H,W], base_label [B,H,W], class_index [B], zero-based among the base classes,
        and class_id [B].
    """
    episode = {"query": inputs.make(spec["query"])}
    for key in ("support", "support_mask"):
        ways = [np.stack([inputs.make(shot) for shot in way], axis=1) for way in spec[key]]
        episode[key] = np.stack(ways, axis=1)
    for key in ("query_mask", "base_label"):
        if isinstance(spec.get(key), list):
            episode[key] = inputs.make(spec[key])
    for key in ("class_index", "class_id"):
        if key in spec:
            episode[key] = np.asarray(spec[key], dtype=np.int64)
    return episode


class Variant:
    """A folder of cases that share one checkpoint layout, such as ``bam/resnet50``."""

    def __init__(self, name: str) -> None:
        self.name = name
        path = RECORDED / name / f"{MANIFEST}.json"
        self.manifest = json.loads(path.read_text()) if path.exists() else {}

    def state_dict(self, case: Case) -> Arrays:
        """Fill the layout by the rule and apply the case's own changes, in order."""
        shapes = dict(self.manifest["state_dict"])
        if case.shot > 1:
            shapes |= self.manifest.get("state_dict_5shot_extra", {})
        else:  # the reweighting of shots exists only in models built for several
            shapes = {key: shape for key, shape in shapes.items() if not key.startswith("kshot_rw")}
        weights = {key: inputs.fill_parameter(key, tuple(shape)) for key, shape in shapes.items()}
        if "running_var_scale" in case.contents:
            for key in weights:
                if key.endswith("running_var"):
                    weights[key] = weights[key] * np.float32(case.contents["running_var_scale"])
        for key, value in case.contents.get("overrides", {}).items():
            weights[key] = np.asarray(value, dtype=np.float32).reshape(weights[key].shape)
        for change in case.contents.get("weight_overrides", []):
            weights[change["key"]] = _changed(weights[change["key"]], change)
        return weights


def _changed(value: np.ndarray, change: dict) -> np.ndarray:
    if "set" in change:
        return np.asarray(change["set"], dtype=np.float32).reshape(value.shape)
    part = slice(*change["input_channels"]) if "input_channels" in change else slice(None)
    value[(slice(None), part) if value.ndim > 1 else ...] *= np.float32(change["scale"])
    return value


def load_case(variant: str, name: str) -> tuple[Variant, Case]:
    """Return (variant, case) such as ``load_case("bam/resnet50", "eval_1shot")``.

    Raises:
        FileNotFoundError: if there is no such thinned record.
    """
    files = {path.suffix: path for path in (RECORDED / variant).glob(f"{name}.*")}
    if not files:
        raise FileNotFoundError(
            f"no record {variant}/{name}; python tests/parity/thin.py {variant} makes it of ../shared/parity"
        )
    contents = json.loads(files[".json"].read_text()) if ".json" in files else {}
    thinned = unpack(files[".safetensors"]) if ".safetensors" in files else {}
    case = Case(f"{variant}/{name}", contents, thinned, whole_arrays(WHOLE / variant / name))
    return Variant(variant), case


def whole_arrays(path: Path) -> Arrays | None:
    """Return the arrays of a case of the full set, or None where it is not there."""
    if path.with_suffix(".npz").exists():
        with np.load(path.with_suffix(".npz")) as arrays:
            return dict(arrays)
    return {} if path.with_suffix(".json").exists() else None


@functools.cache
def case_names() -> tuple[str, ...]:
    """Return the names of all thinned cases, such as ``bam/resnet50/eval_1shot``."""
    paths = [path.relative_to(RECORDED).with_suffix("") for path in RECORDED.rglob("*.*")]
    return tuple(sorted({path.as_posix() for path in paths if len(path.parts) > 1 and _is_case(path)}))


def _is_case(path: Path) -> bool:
    return path.name != MANIFEST and path.parts[0] != TABLES


def word_vectors(name: str) -> np.ndarray:
    """Return a table of word vectors that a case names, [1 + classes,300]."""
    return load_file(RECORDED / TABLES / f"{name}.safetensors")["table"]
