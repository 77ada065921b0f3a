"""A stage-2 training step against the published one, and the share of it that the frozen part takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fewseg.engine.training.finished import peak_gib
from fewseg.engine.training.optimisation import create_optimizer
from fewseg.engine.training.parallel import Wrapped
from fewseg.engine.training.step import training_step
from fewseg.model import create_model
from fewseg.model.contract import Episode
from fewseg.model.fewshot import FewShotModel
from tools.benchmarks.evaluation import OBJECT_SHARE
from tools.benchmarks.forms import FORMS, TESTING_ONLY, Form, add_forms, chosen_forms
from tools.benchmarks.machine import add_machine, described, device_of
from tools.benchmarks.published_bam import published_counts, published_losses, published_outputs
from tools.timing import by_turns, draw_episode

PUBLISHED, OURS, FROZEN = "published step", "our step", "its frozen part"
IN_PARTS = "our step, in two parts"

RATE = 1e-3
"""The learning rate, which costs nothing."""

Key = tuple[str, str]
"""A form, and what is measured in it."""


def published_step(
    model: FewShotModel, episode: Episode, optimizer: Optimizer, precision: AbstractContextManager[Any]
) -> list[float]:
    """Make a step as the published loop does, which counts pixels and reads its losses after every step.

    Returns:
        The losses of the ensemble, the meta-learner and the base learner.
    """
    final, losses = published_update(model, episode, optimizer, precision)
    published_counts(final, episode.ground_truth)
    return [loss.item() for loss in losses]


def published_update(
    model: FewShotModel, episode: Episode, optimizer: Optimizer, precision: AbstractContextManager[Any]
) -> tuple[Tensor, list[Tensor]]:
    """Minimise the published losses.

    Args:
        model: the network.
        episode: the batch.
        optimizer: its optimizer.
        precision: context of the forward pass; the published loop has none.

    Returns:
        The final logits, and the losses.
    """
    with precision:
        outputs = published_outputs(model, episode)
        losses = published_losses(outputs, episode)
    optimizer.zero_grad()
    torch.stack(losses).sum().backward()
    optimizer.step()
    return outputs.final, losses


@torch.no_grad()
def frozen_part(model: FewShotModel, episode: Episode) -> None:
    """Run what learns nothing in a step: the backbone on all images, and the base learner on the queries."""
    features = model.query_features(episode.query)
    model.support_features(episode.support.flatten(0, 2), episode.support_mask.flatten(0, 2))
    assert model.base_head is not None
    model.base_head(features["high"])


def network(device: torch.device, size: int, **options: Any) -> FewShotModel:
    """Return a network in training mode; its weights are always the same."""
    torch.manual_seed(0)
    return create_model("bam", image_size=size, **options).train().to(device)


def steps_of(
    model: FewShotModel, episode: Episode, form: Form, *, accumulate: int = 1
) -> dict[str, Callable[[], Any]]:
    """Return our step in a form, and the frozen part of it unless it is compiled.

    Args:
        model: a network in training mode.
        episode: the batch.
        form: the precision, and whether the network is compiled.
        accumulate: number of parts of the batch whose gradients are added up.
    """
    optimizer = create_optimizer(model.param_groups(), lr=RATE)
    forward = Wrapped(model, compiled=form.compiled, reduced=form.reduced)
    step = partial(training_step, model, episode, optimizer, forward=forward, accumulate=accumulate)
    frozen = form.action(model.device, partial(frozen_part, model, episode))
    return {OURS: step} if form.compiled else {OURS: step, FROZEN: frozen}


def measure(
    device: torch.device,
    batch: int,
    size: int,
    forms: Mapping[str, Form],
    rounds: int,
    *,
    shot: int = 1,
    **options: Any,
) -> dict[Key, float]:
    """Run the steps by turns -> form and what is measured -> seconds.

    Args:
        device: where they compute.
        batch: episodes of a step.
        size: side of the images.
        forms: name -> form.
        rounds: measured runs.
        shot: number of supports.
        options: of the model.
    """
    episode = draw_episode(size, shot, batch, share=OBJECT_SHARE).to(device)

    def ours(form: Form, **how: int) -> dict[str, Callable[[], Any]]:
        model = network(device, size, shot=shot, **options).to(memory_format=torch.channels_last)
        return steps_of(model, episode, form, **how)

    actions: dict[Key, Callable[[], Any]] = {}
    for name, form in forms.items():
        if not form.compiled:
            plain = network(device, size, shot=shot, **options)
            optimizer = torch.optim.SGD(
                [p for p in plain.parameters() if p.requires_grad], RATE, momentum=0.9
            )
            step = partial(published_step, plain, episode, optimizer, form.autocast(device))
            actions[name, PUBLISHED] = form.rounded(step)
        actions |= {(name, what): form.rounded(action) for what, action in ours(form).items()}
    if batch % 2 == 0:
        actions["float32", IN_PARTS] = FORMS["float32"].rounded(ours(FORMS["float32"], accumulate=2)[OURS])
    return by_turns(actions, rounds, device=device)[0]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command line."""
    add_machine(parser)
    add_forms(parser, without=TESTING_ONLY)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--shot", type=int, default=1, metavar="K", help="number of supports (default: 1)")
    parser.add_argument("--batch", type=int, help="episodes of a step (default: 2, on a GPU 8)")


def run(args: argparse.Namespace) -> None:
    """Print the seconds of a step in every form."""
    device = device_of(args)
    forms = chosen_forms(args, device)
    batch = args.batch or (8 if device.type == "cuda" else 2)
    print(described(device))
    print(f"BAM, {args.backbone}, {args.size} px, {args.shot}-shot, stage 2, batches of {batch}")
    options = {"shot": args.shot, "backbone": args.backbone}
    show(measure(device, batch, args.size, forms, args.rounds, **options), batch)
    print(f"peak memory {peak_gib(device):.1f} GiB")


def show(seconds: Mapping[Key, float], batch: int) -> None:
    """Print the seconds, and how they compare with the published step in float32."""
    published = seconds["float32", PUBLISHED]
    for (form, what), value in seconds.items():
        line = f"{form:18}{what:24}{value:9.4f} s{batch / value:9.1f} episodes/s"
        if what == FROZEN:
            print(f"{line}, {100 * value / seconds[form, OURS]:.0f} % of our step")
        else:
            print(f"{line}, {published / value:.2f} times as fast as the published step in float32")
