"""A stage-2 training step against the published one, and the share of it that the frozen part takes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from fewseg.engine.training.finished import peak_gib
from fewseg.engine.training.optimisation import create_optimizer
from fewseg.engine.training.parallel import Wrapped
from fewseg.engine.training.step import training_step
from fewseg.model import create_model
from fewseg.model.contract import Episode
from fewseg.model.fewshot import FewShotModel
from tools.benchmarks.evaluation import OBJECT_SHARE
from tools.benchmarks.forms import FORMS, Form, add_forms, chosen_forms
from tools.benchmarks.machine import add_machine, described, device_of
from tools.benchmarks.published_bam import published_counts, published_losses, published_outputs
from tools.timing import by_turns, draw_episode

PUBLISHED, OURS, FROZEN = "published step", "our step", "its frozen part"

_RATE = 1e-3


def published_step(
    model: FewShotModel, episode: Episode, optimizer: Optimizer, precision: AbstractContextManager[Any]
) -> list[float]:
    """Make a step as the published loop does, which reads its losses and counts pixels after every step.

    Args:
        model: the network.
        episode: the batch.
        optimizer: its optimizer.
        precision: context of the forward pass; the published loop has none.

    Returns:
        The losses of the ensemble, the meta-learner and the base learner.
    """
    with precision:
        outputs = published_outputs(model, episode)
        losses = published_losses(outputs, episode)
    optimizer.zero_grad()
    torch.stack(losses).sum().backward()
    optimizer.step()
    assert episode.query_mask is not None  # the losses were computed with it
    published_counts(outputs.final, episode.query_mask)
    return [loss.item() for loss in losses]


@torch.no_grad()
def frozen_part(model: FewShotModel, episode: Episode) -> None:
    """Run what learns nothing in a step: the backbone on all images, and the base learner on the queries."""
    features = model.query_features(episode.query)
    model.support_features(episode.support.flatten(0, 2), episode.support_mask.flatten(0, 2))
    assert model.base_head is not None
    model.base_head(features["high"])


class Bench:
    """Networks with the same weights, each with an optimizer: one of the published loop, one for every form.

    Args:
        device: where they compute.
        shot: number of supports.
        batch: episodes of a step.
        size: side of the images.
        options: of the model.
    """

    def __init__(self, device: torch.device, shot: int, batch: int, size: int, **options: Any) -> None:
        self.device = device
        self.episode = draw_episode(size, shot, batch, share=OBJECT_SHARE).to(device)
        self.options: dict[str, Any] = {"shot": shot, "image_size": size, **options}

    def network(self) -> FewShotModel:
        """Return a network in training mode; its weights are always the same."""
        torch.manual_seed(0)
        return create_model("bam", **self.options).train().to(self.device)

    def measure(self, forms: Mapping[str, Form], rounds: int) -> dict[tuple[str, str], float]:
        """Run the steps by turns -> form and what is measured -> seconds."""
        actions: dict[tuple[str, str], Callable[[], Any]] = {}
        for name, form in forms.items():
            for what, action in self.actions(form).items():
                actions[name, what] = form.rounded(action)
        seconds, _ = by_turns(actions, rounds, device=self.device)
        return seconds

    def actions(self, form: Form) -> dict[str, Callable[[], Any]]:
        """Return the steps and the frozen part in a form; compiled, only our step."""
        ours = self.network().to(memory_format=torch.channels_last)
        optimizer = create_optimizer(ours.param_groups(), lr=_RATE)
        forward = Wrapped(ours, compiled=form.compiled, reduced=form.reduced)
        step = partial(training_step, ours, self.episode, optimizer, forward=forward)
        if form.compiled:
            return {OURS: step}
        plain = self.network()
        learning = torch.optim.SGD([p for p in plain.parameters() if p.requires_grad], lr=_RATE, momentum=0.9)
        return {
            PUBLISHED: partial(published_step, plain, self.episode, learning, form.autocast(self.device)),
            OURS: step,
            FROZEN: form.action(self.device, partial(frozen_part, ours, self.episode)),
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command line."""
    add_machine(parser)
    add_forms(parser, [name for name, form in FORMS.items() if form.folded])  # no training folds
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
    bench = Bench(device, args.shot, batch, args.size, backbone=args.backbone)
    show(bench.measure(forms, args.rounds), batch)
    print(f"peak memory {peak_gib(device):.1f} GiB")


def show(seconds: Mapping[tuple[str, str], float], batch: int) -> None:
    """Print the seconds, and how they compare with the published step in float32."""
    published = seconds["float32", PUBLISHED]
    for (form, what), value in seconds.items():
        line = f"{form:18}{what:16}{value:9.4f} s{batch / value:9.1f} episodes/s"
        if what == FROZEN:
            print(f"{line}, {100 * value / seconds[form, OURS]:.0f} % of our step")
        else:
            print(f"{line}, {published / value:.2f} times as fast as the published step in float32")
