"""Estimate from counted operations what a GPU would need for BAM's training step and a full test.

It is an estimate, not a measurement. Every operation takes the longest of three times: its FLOPs at the
card's throughput, its bytes at the card's bandwidth, and a launch. Nothing overlaps, the host waits for
nothing, and every kernel reaches these figures.

The operations are counted without computing anything: on tensors that have shapes but no values. The networks
take the forms that they have on a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fewseg.model import create_model, waiting
from fewseg.model.fewshot import FewShotModel
from fewseg.model.folding import fold_for_testing
from fewseg.util.errors import UserError
from tools.benchmarks import evaluation, step
from tools.benchmarks.forms import FORMS, Form
from tools.benchmarks.operations import Operation, operations_of
from tools.benchmarks.pascal import SHOTS, Costs, full_test_seconds, one_by_one_seconds
from tools.benchmarks.published_bam import published_outputs
from tools.episode_parts import DECODE, QUERY, SUPPORT, EpisodeParts
from tools.timing import CPU, draw_episode


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


def count_steps(batch: int, size: int, form: Form, **options: Any) -> Counted:
    """Count the operations of a training step, as published and ours; the pixels are not counted in it."""
    plain, ours = (create_model("bam", image_size=size, **options).train() for _ in range(2))
    with FakeTensorMode(), mock.patch.object(waiting, "would_wait", return_value=True):
        plain, ours = without_values(plain), without_values(ours)
        episode = draw_episode(size, 1, batch, share=evaluation.OBJECT_SHARE)
        learning = [p for p in plain.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(learning, lr=step.RATE, momentum=0.9, foreach=True)  # as on a GPU
        actions: dict[str, Callable[[], Any]] = {
            step.PUBLISHED: partial(step.published_update, plain, episode, optimizer, form.autocast(CPU)),
            **step.steps_of(ours, episode, form),
        }
        return {what: operations_of(action) for what, action in actions.items()}


@torch.no_grad()
def count_evaluation(shot: int, batch: int, size: int, form: Form, **options: Any) -> Counted:
    """Count the operations of the published loop's episode, and of the parts of our evaluation."""
    plain, ours = (create_model("bam", shot=shot, image_size=size, **options).eval() for _ in range(2))
    fold_for_testing(ours)
    counting = evaluation.counting(torch.zeros(batch, 2, size, size))
    counted: Counted = {what: operations_of(action) for what, action in counting.items()}
    masks = evaluation.masks_of(draw_episode(size, 1, share=evaluation.OBJECT_SHARE))
    gpu = mock.patch.object(waiting, "would_wait", return_value=True)
    with waiting.known_objects(masks), FakeTensorMode(), gpu, form.autocast(CPU):
        loop = partial(published_outputs, without_values(plain), draw_episode(size, shot))
        parts = EpisodeParts(without_values(ours), draw_episode(size, shot, batch)).actions
        actions: dict[str, Callable[[], Any]] = {evaluation.PUBLISHED: loop, **parts}
        return {**counted, **{what: operations_of(action) for what, action in actions.items()}}


def without_values(network: FewShotModel) -> FewShotModel:
    """Replace the weights of a network by tensors of the same shapes that have no values, in place."""
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(_like(weight), weight.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _like(buffer)
    return network


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)


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
        show(card, name, "", count_steps(form=FORMS[name], **count))
        found = {shot: count_evaluation(shot, form=FORMS[name], **count) for shot in SHOTS}
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
        each = {what: taken / batch for what, taken in seconds.items()}
        costs[shot] = Costs(each[QUERY], each[SUPPORT], each[DECODE], each[evaluation.COUNT], shot=shot)
        episodes[shot] = seconds[evaluation.PUBLISHED] + seconds[evaluation.PUBLISHED_COUNT]
    return {"published loop": one_by_one_seconds(episodes), "encode once": full_test_seconds(costs)}
