"""Time EFTNet's adaptation against the published way, which encodes every image anew wherever it is used."""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import Tensor

from fewseg.engine.evaluation.measure import made_ready
from fewseg.model import create_adapter, create_model
from fewseg.model.adapt.eftnet import EFTNet
from fewseg.model.adapt.episode import AdaptedEpisode, Support
from fewseg.model.contract import Encoding, Episode, Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.pooling import foreground
from fewseg.model.layer.resize import resize_like
from tools.benchmarks.machine import add_machine, described, device_of
from tools.timing import by_turns, draw_episode


class ReEncodedEpisode(AdaptedEpisode):
    """The same rounds, in which every image passes through backbone and base learner each time it is used.

    Priors compare all positions of both images, and no comparison is stored.
    """

    def _encode_frozen_parts(self) -> None:
        """Store no features."""
        self.auxiliary = {}

    def _query(self, image: int) -> Encoding:
        return self.model.encode_query(self.images[image])

    def _supports(self) -> list[Support]:
        return [Support(self._encoded(index + 1, mask), index) for index, mask in enumerate(self.masks)]

    def _query_as_support(self, mask: Tensor) -> Support:
        self.latest = mask
        return Support(self._encoded(0, mask))

    def _reverse(self, shot: int, query: Support, supports: list[Support], *, alone: bool) -> Prediction:
        again = query if shot == 0 else self._query_as_support(self.latest)
        return super()._reverse(shot, again, self._supports(), alone=alone)

    def _comparison(self, image: int, query: Encoding, support: Support) -> Encoding:
        return {}

    def _encoded(self, image: int, mask: Tensor) -> Encoding:
        features = self.model.support_features(self.images[image], mask)
        encoding = self.model.encode_support_features(features, mask, self.episode.class_id[:, 0])
        inside = resize_like(foreground(mask), features["layer4"]) > 0
        return encoding | {"prior_object": (features["layer4"] * inside).flatten(2)}


class ReEncodingEFTNet(EFTNet):
    """The adaptation with re-encoded episodes."""

    Adapted = ReEncodedEpisode


def balance(model: FewShotModel, episode: Episode, share: float = 0.2) -> None:
    """Shift the classifier of random weights until ``share`` of the query is foreground."""
    *_, (name, bias) = model.get_submodule("meta.decoder.classify").named_parameters()
    assert name.endswith("bias")
    with torch.no_grad():
        meta = model(episode).parts["meta"]
        bias[1] -= (meta[:, 1] - meta[:, 0]).quantile(1 - share)


@torch.no_grad()
def segment(model: FewShotModel, episode: Episode) -> Prediction:
    """Segment an episode without adaptation."""
    return model(episode)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command line."""
    add_machine(parser, rounds=1)
    parser.add_argument("--arch", default="msanet", choices=("bam", "msanet"))
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5], metavar="K", help="default: 1 5")
    parser.add_argument("--updates", type=int, default=5, help="rounds of the adaptation (default: 5)")


def run(args: argparse.Namespace) -> None:
    """Print the comparison."""
    device = device_of(args)
    print(described(device))
    torch.manual_seed(0)
    for shots in args.shots:
        model, plain = (
            create_model(args.arch, backbone=args.backbone, shot=shots, image_size=args.size)
            .eval()
            .to(device)
            for _ in range(2)
        )
        episode = draw_episode(args.size, shots).to(device)
        balance(plain, episode)
        model.load_state_dict(plain.state_dict())
        adapter = create_adapter(
            "eftnet", made_ready(model, device, adapted=True), rounds=args.updates, lr=1e-4
        )
        published = ReEncodingEFTNet(plain, adapter.options)
        adapter(draw_episode(97, shots).to(device))  # torch prepares much when it is first used
        actions = {
            "plain": partial(segment, model, episode),
            "adapted": partial(adapter, episode),
            "encoding anew": partial(published, episode),
        }
        seconds, results = by_turns(actions, args.rounds, warm_up=False, device=device)
        difference = (results["adapted"].logits - results["encoding anew"].logits).abs().max().item()
        taken = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
        print(
            f"{args.arch} {args.backbone} {args.size} px {shots}-shot: {taken}: "
            f"{seconds['encoding anew'] / seconds['adapted']:.1f} times; logits differ by {difference:.1e}",
            flush=True,
        )
