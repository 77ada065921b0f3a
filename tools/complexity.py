"""Count and measure what networks cost: parameters, FLOPs, seconds and memory, with random weights.

python tools/complexity.py config/pascal/{bam,canet,hsnet}_resnet50.yaml --shots 1 5
python tools/complexity.py config/pascal/bam_resnet50.yaml --format markdown --out costs
python tools/complexity.py config/shapes/bam_resnet18.yaml --rounds 0     # what can be counted, no seconds

No data set is needed. The images have the side that the config tests with; a support's object covers 16 %.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

import torch
from torch import nn

from fewseg.dataset.classes.shared_names import NAMES
from fewseg.dataset.classes.split import class_split
from fewseg.engine.setup.build import build_few_shot
from fewseg.engine.setup.data import fold_of
from fewseg.engine.setup.protocols import test_protocol
from fewseg.engine.setup.script import run_script
from fewseg.engine.setup.stage import require_few_shot
from fewseg.engine.training.finished import peak_gib
from fewseg.model.fewshot import FewShotModel
from fewseg.util.command_line import command_line
from fewseg.util.config import Config, load_config
from fewseg.util.errors import ResultError, UserError
from fewseg.util.files import write_text
from fewseg.util.results.formats import FORMATS
from fewseg.util.results.tables import Row, Table, Value
from tools.episode_parts import DECODE, QUERY, SUPPORT, EpisodeParts
from tools.timing import by_turns, draw_episode

NOTES = (
    "Parameters in millions: of the whole network, and of the part that stage 2 trains. FLOPs in 10^9, two "
    "for every multiplication with addition, of convolutions and matrix products only: of encoding the "
    "query, of encoding all supports, of decoding, and of their sum, an episode without stored encodings. "
    "Auxiliary images are not counted.",
    "Seconds are those of an episode without stored encodings. Peak memory is that of the process, which "
    "holds PyTorch too.",
)


@dataclass(frozen=True)
class Costs:
    """What one episode costs.

    Attributes:
        side: side of the images in pixels.
        parameters, learnable: number of parameters, and of those that stage 2 trains.
        query, supports, decode: FLOPs of the query's encoding, of the K supports' encodings, of the decoding.
        seconds: of these three together; None if they were not measured.
        peak: peak memory of the process so far, in GiB.
    """

    side: int
    parameters: int
    learnable: int
    query: int
    supports: int
    decode: int
    seconds: float | None
    peak: float

    def figures(self) -> tuple[Value | None, ...]:
        """Return the figures in the order of the table's columns."""
        counts = (self.query, self.supports, self.decode, self.query + self.supports + self.decode)
        return (
            *(Value(number / 1e6) for number in (self.parameters, self.learnable)),
            *(Value(flops / 1e9, decimals=1) for flops in counts),
            None if self.seconds is None else Value(self.seconds),
            Value(self.peak),
        )


COLUMNS = (
    *(
        "parameters, M",
        "learnable, M",
        "query, GFLOPs",
        "supports, GFLOPs",
        "decode, GFLOPs",
        "episode, GFLOPs",
    ),
    *("s / episode", "peak, GiB"),
)


def build(config: Config, device: torch.device) -> FewShotModel:
    """Build the network of a config, with random weights, in evaluation mode.

    Raises:
        UserError: the config describes no few-shot network, or its classes are known from missing data only.
    """
    data = config.Data
    split = class_split(data.data_set, data.split) if data.data_set in NAMES else fold_of(config).classes
    return build_few_shot(config, split).eval().to(device)


@torch.inference_mode()
def costs_of(model: FewShotModel, side: int, shot: int, rounds: int) -> Costs:
    """Count and measure the episode of a network with ``shot`` supports.

    One support is encoded for all, see ``EpisodeParts``.
    """
    device = model.device
    parts = EpisodeParts(model, draw_episode(side, shot).to(device))
    seconds = None
    if rounds:
        taken, _ = by_turns(parts.actions, rounds, warm_up=False, device=device)  # counting was the warm-up
        seconds = taken[QUERY] + shot * taken[SUPPORT] + taken[DECODE]
    return Costs(
        side,
        _number(model.parameters()),
        _number(parameter for group in model.param_groups().values() for parameter in group),
        parts.flops[QUERY],
        shot * parts.flops[SUPPORT],
        parts.flops[DECODE],
        seconds,
        peak_gib(device),
    )


def _number(parameters: Iterator[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in {id(p): p for p in parameters}.values())


def measure(path: str, opts: Sequence[str], shots: Sequence[int], rounds: int) -> list[Row]:
    """Return a row per number of supports, fewest first, because the peak of memory never falls."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for shot in sorted(shots):
        config = load_config(path, [*opts, "shot", str(shot)])
        side = test_protocol(config).input_size
        costs = costs_of(build(config, device), side, shot, rounds)
        labels = (config.Method.arch, config.Method.backbone, str(side), str(shot))
        rows.append(Row(labels, costs.figures()))
    return rows


def tabulated(rows: Sequence[Row]) -> Table:
    """Return the table of all rows."""
    title = f"costs of an episode, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return Table(title, ("method", "backbone", "side, px", "shot"), COLUMNS, tuple(rows), NOTES)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = command_line(__doc__)
    add = parser.add_argument
    add("configs", nargs="+", metavar="YAML", help="configs of few-shot methods")
    add(
        "--shots", nargs="+", type=int, default=[1, 5], metavar="K", help="numbers of supports (default: 1 5)"
    )
    add("--rounds", type=int, default=3, metavar="N", help="of the measured seconds; 0: none (default: 3)")
    add("--format", choices=FORMATS, default="terminal", help="what is printed (default: terminal)")
    add("--out", metavar="FOLDER", help="also write the table in every format, as costs.*")
    add("--opts", nargs="*", default=[], metavar="KEY VALUE", help="changes to all configs: backbone vgg16")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measure every config in a process of its own, so that its peak of memory is its own."""
    args = parse_arguments(argv)
    if min(args.shots) < 1 or args.rounds < 0:
        raise UserError("--shots must be at least 1 and --rounds at least 0")
    for path in args.configs:  # a mistake is found before the first of many minutes
        require_few_shot(load_config(path, args.opts))
    rows: list[Row] = []
    spawn = multiprocessing.get_context("spawn")  # a forked process would not be allowed to use a GPU
    for path in args.configs:
        with ProcessPoolExecutor(1, spawn) as alone:
            rows += alone.submit(measure, path, args.opts, args.shots, args.rounds).result()
        print(f"{path}: measured", file=sys.stderr, flush=True)
    table = tabulated(rows)
    print(FORMATS[args.format][1](table))
    if args.out:
        for suffix, write in FORMATS.values():
            write_text(Path(args.out) / f"costs.{suffix}", write(table), ResultError)


if __name__ == "__main__":
    run_script(main)
