"""Train and test every method by the same short schedule, on the same episodes, and tabulate what comes out.

python tools/all_methods.py                              # every config of config/shapes on fold 0, 1-shot
python tools/all_methods.py --methods bam pfenet --variants published composed adapted
python tools/all_methods.py --epochs 20 --episodes 1000  # longer

The base learner of the fold is trained first, by its own config, unless it is there. What was trained or
tested before is reused; --out names another folder to start anew.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

from fewseg.engine.evaluation.measure import UNTRAINED
from fewseg.engine.setup.build import build_few_shot
from fewseg.engine.setup.data import fold_of
from fewseg.engine.setup.script import run_script
from fewseg.engine.setup.stage import trains_base_learner
from fewseg.engine.setup.weights import base_weight_path
from fewseg.engine.training.snapshot import BEST
from fewseg.util.command_line import command_line
from fewseg.util.config import load_config
from fewseg.util.errors import CheckpointError, ConfigError, ResultError
from fewseg.util.files import write_text
from fewseg.util.progress import progress
from fewseg.util.results.folder import ResultFolder
from fewseg.util.results.result import Result, read_result

ROOT = Path(__file__).resolve().parent.parent
GIB = 2**30
VARIANTS = ("published", "composed", "adapted")
WITH_BASE = ("base", "pspnet", "ensemble", "bam")
WITHOUT_BASE = ("base", "none", "ensemble", "none")
_STEP = re.compile(r"\(([\d.]+) s a step\)")
_PEAK = "peak_memory.txt"
_BASELINES = "*/*/results/baselines"
_CLUSTERS = "40"
"""Latent classes that are mined: as many for every data set, few enough for the smallest."""


@dataclass(frozen=True)
class Variant:
    """A method and the parts that it is combined with.

    Attributes:
        config: YAML file.
        folder: folder of the run.
        training: changes to the config.
        testing: further changes for the test only.
        parts: the parts that the method is combined with, in words.
        parameters: number of parameters of the whole network, in millions.
    """

    config: Path
    folder: Path
    training: tuple[str, ...]
    testing: tuple[str, ...]
    parts: str
    parameters: float

    @property
    def method(self) -> str:
        return self.config.stem.rpartition("_")[0]


@dataclass(frozen=True)
class Line:
    """A row of the table; None where something was not measured."""

    method: str
    parts: str
    parameters: float | None
    step: float | None
    peak: float | None
    result: Result

    def cells(self) -> list[str]:
        """Return the row's texts."""
        episodes = self.result.episodes * len(self.result.seeds)
        return [
            self.method,
            self.parts,
            _text(self.parameters, ".2f"),
            _text(self.step, ".2f"),
            _text(self.result.seconds / episodes, ".3f"),
            _text(self.peak, ".1f"),
            *(f"{100 * self.result.mean[metric]:.1f}" for metric in ("mIoU", "FB-IoU")),
        ]


COLUMNS = (
    "method",
    "combined with",
    "parameters, M",
    "s / step",
    "s / episode",
    "peak, GiB",
    "mIoU",
    "FB-IoU",
)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__)
    add = parser.add_argument
    add("--configs", type=Path, default=ROOT / "config/shapes", help="folder (default: config/shapes)")
    add("--methods", nargs="+", metavar="NAME", help="all of the folder by default")
    about = "composed: with base learner and ensemble, or without; adapted: EFTNet's adaptation around it"
    add("--variants", nargs="+", choices=VARIANTS, default=["published"], help=about)
    add("--fold", type=int, default=0)
    add("--shot", type=int, default=1)
    add("--epochs", type=int, default=10, help="of stage 2 (default: 10)")
    add("--episodes", type=int, default=200, help="per seed (default: 200)")
    add("--seeds", nargs="+", type=int, default=[321])
    add("--out", type=Path, default=Path("exp/all_methods"), help="folder (default: exp/all_methods)")
    add("--opts", nargs="*", default=[], metavar="KEY VALUE", help="changes to every config")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Train, test, tabulate."""
    args = parse_arguments(argv)
    _train_base_learner(args)
    lines: list[Line] = []
    refused: list[str] = []
    for variant in progress([*variants(args)], "methods"):
        try:
            lines.append(measure(variant, args))
        except ResultError as failure:
            refused.append(f"{variant.method} {variant.parts}: {failure}")
    if not lines:
        raise ResultError("; ".join(refused))
    lines += baselines(lines[0], args)
    table = "\n".join([markdown(lines), *(f"\nLeft out: {text}." for text in refused)])
    write_text(args.out / "table.md", f"{table}\n", ResultError)
    print(table)


def variants(args: argparse.Namespace) -> Iterator[Variant]:
    """Yield the variants to be trained and tested.

    Raises:
        ConfigError: a method without a config in the folder.
    """
    files = {path.stem.rpartition("_")[0]: path for path in sorted(args.configs.glob("*.yaml"))}
    for method in args.methods or files:
        if method not in files:
            raise ConfigError(f"--methods {method}: {args.configs} has configs of {', '.join(files)}")
        if trains_base_learner(load_config(files[method])):
            continue
        for kind in args.variants:
            yield from _variant(files[method], kind, args)


def _variant(file: Path, kind: str, args: argparse.Namespace) -> Iterator[Variant]:
    training = ("split", str(args.fold), "shot", str(args.shot), *args.opts)
    folder = args.out / file.stem
    if kind == "adapted":
        yield _described(file, folder / "published", training, ("adapt", "eftnet"))
        return
    published = _described(file, folder / "published", training)
    if kind == "published":
        yield published
        return
    changes, place = (WITH_BASE, "with_base") if published.parts == "-" else (WITHOUT_BASE, "without_base")
    with suppress(ConfigError):  # docs/methods.md says which methods cannot do without, or with
        yield _described(file, folder / place, (*training, *changes))


def _described(file: Path, folder: Path, training: tuple[str, ...], testing: tuple[str, ...] = ()) -> Variant:
    config = load_config(file, training)
    network = build_few_shot(config, fold_of(config).classes)
    parts = ["-" if network.base_head is None else "base"]
    parts += ["ensemble"] if network.ensemble is not None else []
    parts += ["eftnet"] if testing else []
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    return Variant(file, folder, training, testing, " + ".join(parts), millions)


def measure(variant: Variant, args: argparse.Namespace) -> Line:
    """Train and test a variant.

    Raises:
        ResultError: a script refused; its one line.
    """
    folder = variant.folder
    results = folder / ("results" if not variant.testing else "adapted")
    opts = [*_schedule(variant.training, folder, args), *_mined_labels(variant, args)]
    train = _run("train.py", variant.config, [], [*opts, "val_episodes", "100", "resume", "auto"])
    count = ["--episodes", str(args.episodes), "--seeds", *map(str, args.seeds), "--out", str(results)]
    if not variant.testing and not any(args.out.glob(f"{_BASELINES}/{UNTRAINED}-*.json")):
        count.append("--untrained")  # the first method's network stands for all
    if not (results / _PEAK).is_file() or _result(results, args) is None:
        test = _run("test.py", variant.config, count, [*opts, *variant.testing])
        write_text(results / _PEAK, f"{max(test, _peak_before(folder), train)}\n", ResultError)
    result = _result(results, args)
    if result is None:
        raise ResultError(f"{results}: holds no result of {args.episodes} episodes; name another --out")
    steps = [float(seconds) for seconds in _STEP.findall((folder / "train.log").read_text())]
    peak = float((results / _PEAK).read_text())
    step = statistics.median(steps) if steps else None
    return Line(variant.method, variant.parts, variant.parameters, step, peak, result)


def _result(folder: Path, args: argparse.Namespace) -> Result | None:
    """Return the result of as many episodes and of the same seeds; None where there is none."""
    wanted = args.episodes, args.seeds
    found = ResultFolder(folder).results().values()
    return next((r for r in found if (r.episodes, [seed.seed for seed in r.seeds]) == wanted), None)


def _schedule(training: Sequence[str], folder: Path, args: argparse.Namespace) -> list[str]:
    return [*training, "save_path", str(folder), "epochs", str(args.epochs), "val_freq", "99"]


def _mined_labels(variant: Variant, args: argparse.Namespace) -> list[str]:
    """Mine the labels that a method learns from, by the method it builds on, and return where they are."""
    if load_config(variant.config, variant.training).Data.mined_labels is None:
        return []
    plain = variant.config.with_name(variant.config.name.replace("-reconstruction_", "_"))
    folder = args.out / plain.stem / "published"
    mined = folder / "mined"
    if not any(mined.glob("*.json")):
        opts = _schedule(variant.training, folder, args)
        _run("train.py", plain, [], [*opts, "val_episodes", "100", "resume", "auto"])
        argv = ["--weight", str(folder / BEST), "--out", str(mined), "--clusters", _CLUSTERS]
        _run("tools/mine_latent_classes.py", plain, argv, variant.training)
    return ["mined_labels", str(mined)]


def baselines(line: Line, args: argparse.Namespace) -> list[Line]:
    """Return the rows of the baselines, each from the first run that has it."""
    found: dict[str, Result] = {}
    for path in sorted(args.out.glob(f"{_BASELINES}/*.json")):
        result = read_result(path)
        found.setdefault(result.method, result)
    return [
        Line(result.method, "", None, None, None, result)
        for result in found.values()
        if result.episode_hash == line.result.episode_hash
    ]


def markdown(lines: Sequence[Line]) -> str:
    """Return the table."""
    rows = [COLUMNS, ["---", "---", *["---:"] * (len(COLUMNS) - 2)], *(line.cells() for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _train_base_learner(args: argparse.Namespace) -> None:
    """Train the fold's base learner by its own config, where the methods expect it and it is missing."""
    files = sorted(args.configs.glob("*.yaml"))
    file = next(path for path in files if trains_base_learner(load_config(path)))
    opts = ["split", str(args.fold), *args.opts]
    first = next(path for path in files if not trains_base_learner(load_config(path)))
    methods = load_config(first, opts)
    try:
        base_weight_path(methods, fold_of(methods).classes)
    except CheckpointError:
        _run("train.py", file, [], [*opts, "resume", "auto"])


def _run(script: str, config: Path, argv: Sequence[str], opts: Sequence[str]) -> float:
    """Run a script and return its peak memory in GiB.

    Raises:
        ResultError: it failed.
    """
    command = [sys.executable, script, "--config", str(config), *argv, "--opts", *opts]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines = process.stderr.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        error = [line for line in lines if line.startswith("error: ")] or lines[-1:] or [f"status {status}"]
        raise ResultError(error[0].removeprefix("error: "))
    return usage.ru_maxrss * 1024 / GIB


def _peak_before(folder: Path) -> float:
    """Return the peak memory of an earlier test of the same run, whose training is not repeated."""
    return max((float(path.read_text()) for path in folder.glob(f"*/{_PEAK}")), default=0.0)


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    run_script(main)
