"""Encode once against the published loop, and the time of a full test on PASCAL-5i."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from fewseg.engine.evaluation.measure import made_ready
from fewseg.engine.training.finished import peak_gib
from fewseg.model import create_model, waiting
from fewseg.model.contract import Episode
from fewseg.util.metrics import count_per_image, resize_logits
from tools.benchmarks.forms import TRAINING_ONLY, Form, add_forms, chosen_forms
from tools.benchmarks.machine import add_machine, described, device_of
from tools.benchmarks.pascal import EPISODES, SHOTS, Costs, full_test_seconds, one_by_one_seconds
from tools.benchmarks.published_bam import Outputs, published_counts, published_outputs
from tools.episode_parts import COMPARE, DECODE, QUERY, SUPPORT, EpisodeParts, flops_of
from tools.timing import by_turns, draw_episode

PUBLISHED, ALONE = "published loop, an episode", "our model, an episode alone"
PUBLISHED_COUNT, COUNT = "count as published", "count an episode"
PLAIN = "plain 3x3 convolution"

LABEL_SIDE = 500
"""Side of the labels that predictions are compared with, under the protocol of BAM."""

OBJECT_SHARE = 0.19
"""Share of an image that its object covers. It decides how much of a support's last stage a CPU computes: as
much as on average for the objects of PASCAL's test images."""

_STRIDE, _CHANNELS = 8, 512
"""Stride and channels of the plain convolution: those of the 3x3 ones in ResNet-50's last stage."""

Key = tuple[str, str]
"""A form, and what is measured in it."""


@dataclass(frozen=True)
class Measured:
    """The costs for one number of shots.

    Attributes:
        flops: what is measured -> FLOPs of one image or one episode.
        seconds: form and what is measured -> seconds of one image or one episode.
        deviations: form and what is measured -> largest deviation of the logits from the published loop's in
            float32.
        shot: number of supports.
    """

    flops: Mapping[str, float]
    seconds: Mapping[Key, float]
    deviations: Mapping[Key, float]
    shot: int = 1

    @cached_property
    def forms(self) -> list[str]:
        """The forms in which the parts were measured."""
        return [form for form, what in self.seconds if what == QUERY]

    def costs(self, form: str) -> Costs:
        """Return the costs of the parts."""
        return Costs(
            query=self.seconds[form, QUERY],
            support=self.seconds[form, SUPPORT],
            decode=self.seconds[form, DECODE],
            count=self.seconds["float32", COUNT],
            compare=self.seconds.get((form, COMPARE), 0.0),
            shot=self.shot,
        )

    def one_by_one(self, what: str, form: str = "float32") -> float:
        """Return the seconds of an episode of one of the loops that encode every image anew."""
        counting = self.seconds["float32", PUBLISHED_COUNT if what == PUBLISHED else COUNT]
        return self.seconds[form, what] + counting

    def share_of_floor(self, form: str, what: str) -> float:
        """Return what the plain convolution would take for the same FLOPs, as a share of the time taken."""
        floor = self.flops[what] / self.flops[PLAIN] * self.seconds[form, PLAIN]
        return floor / self.seconds[form, what]


class Bench:
    """Networks with the same weights: for the published loop, and as an evaluation runs it.

    Args:
        device: where they compute.
        shot: number of supports.
        batch: images that are encoded, and episodes that are decoded, together; the loops have one episode.
        size: side of the images.
        options: of the model.
    """

    def __init__(self, device: torch.device, shot: int, batch: int, size: int, **options: Any) -> None:
        torch.manual_seed(0)
        self.device, self.batch, self.compares_once = device, batch, device.type == "cpu"
        self.published, unfolded, folded = (
            create_model("bam", shot=shot, image_size=size, **options).eval().to(device) for _ in range(3)
        )
        for model in (unfolded, folded):
            model.load_state_dict(self.published.state_dict())
        self.unfolded = unfolded.to(memory_format=torch.channels_last)
        self.ours = made_ready(folded, device)
        self.episode = draw_episode(size, shot, share=OBJECT_SHARE).to(device)
        episodes = draw_episode(size, shot, batch, share=OBJECT_SHARE)
        self.masks, self.episodes = masks_of(episodes), episodes.to(device)

    @torch.inference_mode()
    def measure(self, forms: Mapping[str, Form], rounds: int) -> Measured:
        """Run everything by turns."""
        with waiting.known_objects(self.masks):
            flops = self._flops()
            actions = self._loops(forms) | self._parts(forms)
            counts = counting(self.ours(self.episodes).logits)
            actions |= {("float32", what): action for what, action in counts.items()}
            seconds, results = self._by_turns(actions, rounds)
        first = results["float32", PUBLISHED].final
        logits = {key: _logits(result) for key, result in results.items() if key[1] in (PUBLISHED, ALONE)}
        deviations = {key: float((value - first).abs().max()) for key, value in logits.items()}
        return Measured(flops, seconds, deviations, self.episode.shots)

    @torch.inference_mode()
    def parts(self, forms: Mapping[str, Form], rounds: int) -> dict[Key, float]:
        """Run the parts of our evaluation by turns -> seconds of one image or one episode."""
        with waiting.known_objects(self.masks):
            return self._by_turns(self._parts(forms), rounds)[0]

    def _by_turns(
        self, actions: Mapping[Key, Callable[[], Any]], rounds: int
    ) -> tuple[dict[Key, float], dict[Key, Any]]:
        seconds, results = by_turns(actions, rounds, device=self.device)
        together = {QUERY, SUPPORT, COMPARE, DECODE, COUNT, PLAIN}
        single = {key: value / (self.batch if key[1] in together else 1) for key, value in seconds.items()}
        return single, results

    def _flops(self) -> dict[str, float]:
        parts = EpisodeParts(self.ours, self.episodes, compared=self.compares_once)
        counted = {part: flops / self.batch for part, flops in parts.flops.items()}
        counted[PUBLISHED], _ = flops_of(lambda: published_outputs(self.published, self.episode))
        counted[ALONE], _ = flops_of(lambda: self.ours(self.episode))
        counted[PLAIN] = flops_of(self._plain())[0] / self.batch
        return counted

    def _loops(self, forms: Mapping[str, Form]) -> dict[Key, Callable[[], Any]]:
        """Return both loops that encode every image anew, as published in every precision."""
        loops: dict[str, Callable[[], Any]] = {
            PUBLISHED: partial(published_outputs, self.published, self.episode),
            ALONE: partial(self.ours, self.episode),
        }
        return {
            (name, what): form.action(self.device, loop)
            for name, form in forms.items()
            for what, loop in loops.items()
            if form.folded and not form.compiled
        }

    def _parts(self, forms: Mapping[str, Form]) -> dict[Key, Callable[[], Any]]:
        """Return the parts of our evaluation, and beside them the plain convolution, in every form."""
        actions = {}
        for name, form in forms.items():
            prepare = torch.compile if form.compiled else _same
            with form.autocast(self.device):  # encodings that are decoded have the form's precision
                model = self.ours if form.folded else self.unfolded
                parts = EpisodeParts(model, self.episodes, prepare, compared=self.compares_once)
            for what, action in (*parts.actions.items(), (PLAIN, self._plain())):
                actions[name, what] = form.action(self.device, action)
        return actions

    def _plain(self) -> Callable[[], Tensor]:
        grid = [side // _STRIDE + 1 for side in self.episode.size]
        shapes = ((self.batch, _CHANNELS, *grid), (_CHANNELS, _CHANNELS, 3, 3))
        image, weight = (
            torch.randn(shape, device=self.device).to(memory_format=torch.channels_last) for shape in shapes
        )
        return lambda: conv2d(image, weight, padding=1)


def masks_of(episode: Episode) -> list[Tensor]:
    """Return the masks of all supports, [H,W] each, of an episode in main memory."""
    return list(episode.support_mask.flatten(0, 2))


def counting(logits: Tensor) -> dict[str, Callable[[], Any]]:
    """Return the counting of the published loop, and of our evaluation, which has two predictions.

    Args:
        logits: of B episodes, [B,2,H,W]; the published loop counts the first of them.
    """
    size = (LABEL_SIDE, LABEL_SIDE)
    labels = torch.zeros(len(logits), *size, dtype=torch.int64, device=logits.device)

    def count() -> None:
        for prediction in (logits, logits):  # the meta-learner's is counted too
            count_per_image(resize_logits(prediction, size).argmax(1), labels, 2)

    return {PUBLISHED_COUNT: partial(published_counts, logits[:1], labels[:1]), COUNT: count}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command line."""
    add_machine(parser)
    add_forms(parser, without=TRAINING_ONLY)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument(
        "--shots", type=int, nargs="+", default=SHOTS, metavar="K", help="numbers of supports (default: 1 5)"
    )
    parser.add_argument(
        "--batch", type=int, help="images encoded and episodes decoded together (default: 1, on a GPU 16)"
    )


def run(args: argparse.Namespace) -> None:
    """Print the costs of every part, and what they add up to."""
    device = device_of(args)
    forms = chosen_forms(args, device)
    batch = args.batch or (16 if device.type == "cuda" else 1)
    print(described(device))
    found = {}
    for shot in args.shots:
        print(f"\nBAM, {args.backbone}, {args.size} px, {shot}-shot, {batch} at a time")
        bench = Bench(device, shot, batch, args.size, backbone=args.backbone)
        found[shot] = bench.measure(forms, args.rounds)
        show(found[shot])
    print()
    show_test(found)
    print(f"peak memory {peak_gib(device):.1f} GiB")


def show(found: Measured) -> None:
    """Print the costs for one number of shots."""
    print(f"{'':18}{'':30}{'GFLOPs':>9}{'seconds':>10}{'GFLOP/s':>10}  of the floor")
    for (form, what), seconds in found.seconds.items():
        if what not in found.flops:
            print(f"{'':18}{what:30}{'-':>9}{seconds:10.4f}")
            continue
        flops = found.flops[what] / 1e9
        share = 100 * found.share_of_floor(form, what)
        print(f"{form:18}{what:30}{flops:9.1f}{seconds:10.4f}{flops / seconds:10.0f}{share:12.0f} %")
    for (form, what), deviation in found.deviations.items():
        print(f"{form}: {what}: logits differ by {deviation:.1e}")
    loop = found.seconds["float32", PUBLISHED] * EPISODES
    alone = found.seconds["float32", ALONE] * EPISODES
    for form in found.forms:
        costs = found.costs(form)
        once = costs.run(0) - EPISODES * costs.count
        print(f"{form}: {EPISODES} episodes of fold 0, networks alone: {once:.0f} s (extrapolated),")
        print(f"  {loop / once:.1f} times as fast as the published loop in float32,")
        print(f"  {alone / once:.1f} times as fast as our model without stored encodings in float32")


def show_test(found: Mapping[int, Measured]) -> None:
    """Print how long a full test takes, with counting, without reading images."""
    shots = " and ".join(map(str, found))
    loop = one_by_one_seconds({shot: of.one_by_one(PUBLISHED) for shot, of in found.items()})
    print(f"full test on PASCAL-5i, 4 folds, {shots} shots, with counting, without reading (extrapolated):")
    print(f"{'published loop, float32':30}{loop / 60:10.1f} minutes")
    for form in next(iter(found.values())).forms:
        ours = full_test_seconds({shot: of.costs(form) for shot, of in found.items()})
        print(f"{'encode once, ' + form:30}{ours / 60:10.1f} minutes, {loop / ours:.1f} times as fast")


def _same(function: Any) -> Any:
    return function


def _logits(result: Any) -> Tensor:
    """Return the final logits of either loop."""
    return result.final if isinstance(result, Outputs) else result.logits
