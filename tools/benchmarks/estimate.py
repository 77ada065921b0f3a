"""Estimate from counted operations what a GPU would need for BAM's training step and a full test.

It is an estimate, not a measurement. Every operation takes the longest of three times: its FLOPs at the
card's throughput, its bytes at the card's bandwidth, and a launch. Nothing overlaps, the host
waits for nothing, and every kernel reaches these figures. The operations are counted on the CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fewseg.util.errors import UserError
from tools.benchmarks import evaluation, step
from tools.benchmarks.forms import FORMS
from tools.benchmarks.operations import Operation, operations_of
from tools.benchmarks.pascal import SHOTS, Costs, full_test_seconds, one_by_one_seconds
from tools.episode_parts import DECODE, QUERY, SUPPORT, EpisodeParts
from tools.timing import CPU


@dataclass(frozen=True)
class Card:
    """A GPU by three figures, and a fourth one for bfloat16.

    Attributes:
        tflops: 10^12 float32 operations per second (TF32, where the card computes in it).
        reduced_tflops: the same for bfloat16.
        bandwidth: 10^12 bytes per second between memory and processors.
        launch: 10^-6 seconds from one kernel to the next.
    """

    tflops: float
    reduced_tflops: float
    bandwidth: float
    launch: float

    def seconds(self, operations: Sequence[Operation]) -> float:
        """Return the estimated time of operations, one after the other."""
        return sum(max(self._times(operation)) for operation in operations)

    def launching(self, operations: Sequence[Operation]) -> float:
        """Return the share of the time in operations that take no longer than their launch."""
        launch = self.launch * 1e-6
        small = sum(max(self._times(operation)) == launch for operation in operations)
        return small * launch / self.seconds(operations)

    def _times(self, operation: Operation) -> tuple[float, float, float]:
        tflops = self.reduced_tflops if operation.reduced else self.tflops
        return (
            operation.flops / (tflops * 1e12),
            operation.moved / (self.bandwidth * 1e12),
            self.launch * 1e-6,
        )


Counted = Mapping[str, Sequence[Operation]]
"""What was run -> its operations."""


def count_steps(batch: int, size: int, *, reduced: bool, **options: Any) -> dict[str, list[Operation]]:
    """Count the operations of a training step, as published and ours."""
    bench = step.Bench(CPU, 1, batch, size, **options)
    actions = bench.actions(FORMS["bfloat16" if reduced else "float32"])
    return {what: operations_of(actions[what]) for what in (step.PUBLISHED, step.OURS, step.FROZEN)}


@torch.inference_mode()
def count_evaluation(
    shot: int, batch: int, size: int, *, reduced: bool, **options: Any
) -> dict[str, list[Operation]]:
    """Count the operations of the published loop's episode, and of the parts of our evaluation."""
    bench = evaluation.Bench(CPU, shot, batch, size, **options)
    form = FORMS["bfloat16" if reduced else "float32"]
    actions: dict[str, Callable[[], Any]] = {what: action for (_, what), action in bench.counting().items()}
    actions[evaluation.PUBLISHED] = bench.loops({"form": form})["form", evaluation.PUBLISHED]
    with form.autocast(CPU):
        parts = EpisodeParts(bench.ours, bench.episodes)
    actions |= {what: form.action(CPU, action) for what, action in parts.actions.items()}
    return {what: operations_of(action) for what, action in actions.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command line."""
    add = parser.add_argument
    add("--tflops", type=float, required=True, help="the card's 10^12 float32 operations per second")
    add("--bfloat16-tflops", type=float, help="the same for bfloat16; estimates the reduced precision too")
    add("--bandwidth", type=float, required=True, help="10^12 bytes per second from and to its memory")
    add("--launch", type=float, required=True, help="10^-6 seconds from one kernel to the next")
    add("--size", type=int, default=473, help="side of the images in px (default: 473)")
    add("--backbone", default="resnet50")
    add("--batch", type=int, default=8, help="episodes of a step; images and episodes together (default: 8)")


def run(args: argparse.Namespace) -> None:
    """Print the counts and the estimate."""
    if min(args.tflops, args.bfloat16_tflops or 1, args.bandwidth, args.launch) <= 0:
        raise UserError("--tflops, --bfloat16-tflops, --bandwidth and --launch must be above 0")
    card = Card(args.tflops, args.bfloat16_tflops or args.tflops, args.bandwidth, args.launch)
    print("An estimate, not a measurement: an operation takes as long as its FLOPs, its bytes or its launch.")
    print(f"BAM, {args.backbone}, {args.size} px, {args.batch} episodes a step and images at a time")
    print(f"{'':12}{'':34}{'operations':>11}{'GFLOPs':>10}{'GB':>8}{'ms':>10}  launching")
    count = {"size": args.size, "backbone": args.backbone, "batch": args.batch}
    full: dict[str, float] = {}
    for name in ("float32", *(["bfloat16"] if args.bfloat16_tflops else [])):
        reduced = name == "bfloat16"
        show(card, name, "", count_steps(**count, reduced=reduced))
        found = {shot: count_evaluation(shot, **count, reduced=reduced) for shot in SHOTS}
        for shot, counted in found.items():
            show(card, name, f", {shot}-shot", counted)
        full |= {f"{loop}, {name}": value for loop, value in full_test(card, found, args.batch).items()}
    print("full test on PASCAL-5i, 4 folds, 1 and 5 shots (estimated):")
    for what, seconds in full.items():
        print(f"{what:30}{seconds / 60:10.1f} minutes")


def show(card: Card, form: str, setting: str, counted: Counted) -> None:
    """Print what was counted, and the estimated time."""
    for what, operations in counted.items():
        flops, moved = (sum(getattr(o, name) for o in operations) / 1e9 for name in ("flops", "moved"))
        figures = f"{len(operations):11}{flops:10.1f}{moved:8.2f}{1e3 * card.seconds(operations):10.2f}"
        print(f"{form:12}{what + setting:34}{figures}{100 * card.launching(operations):9.0f} %")


def full_test(card: Card, found: Mapping[int, Counted], batch: int) -> dict[str, float]:
    """Return the estimated seconds of a full test, as published and with every image encoded once.

    Args:
        card: the GPU.
        found: number of shots -> counted operations.
        batch: images or episodes that the parts were counted for.
    """
    costs, episodes = {}, {}
    for shot, counted in found.items():
        seconds = {what: card.seconds(operations) for what, operations in counted.items()}
        parts = (QUERY, SUPPORT, DECODE, evaluation.COUNT)
        costs[shot] = Costs(*(seconds[part] / batch for part in parts))
        episodes[shot] = seconds[evaluation.PUBLISHED] + seconds[evaluation.PUBLISHED_COUNT]
    return {"published loop": one_by_one_seconds(episodes), "encode once": full_test_seconds(costs)}
