"""Time EFTNet's adaptation against the published way, which encodes every image anew wherever it is used.

python tools/benchmark_adapt.py --shots 1 5 --episodes 1
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

import torch
from torch import Tensor

from fewseg.model import create_adapter, create_model
from fewseg.model.adapt.eftnet import EFTNet
from fewseg.model.adapt.episode import AdaptedEpisode, Support
from fewseg.model.contract import Encoding, Episode, Prediction
from fewseg.model.fewshot import FewShotModel
from fewseg.model.layer.pooling import foreground
from fewseg.model.layer.resize import resize_like


class ReEncodedEpisode(AdaptedEpisode):
    """The same rounds with every image sent through the backbone and the base learner wherever it is used.

    Priors compare all positions of both images, and nothing is compared once and for all.
    """

    def _look(self) -> None:
        """Keep nothing."""
        self.auxiliary = {}

    def _query(self, image: int) -> Encoding:
        return self.model.encode_query(self.images[image])

    def _supports(self) -> list[Support]:
        return [Support(self._encoded(number + 1, mask), number) for number, mask in enumerate(self.masks)]

    def _stand_in(self, mask: Tensor) -> Support:
        self.latest = mask
        return Support(self._encoded(0, mask))

    def _reverse(self, shot: int, stand_in: Support, supports: list[Support], *, alone: bool) -> Prediction:
        again = stand_in if shot == 0 else self._stand_in(self.latest)
        return super()._reverse(shot, again, self._supports(), alone=alone)

    def _comparison(self, image: int, query: Encoding, support: Support) -> Encoding:
        return {}

    def _encoded(self, image: int, mask: Tensor) -> Encoding:
        features = self.model.support_features(self.images[image], mask)
        encoding = self.model.encode_support_features(features, mask, self.episode.class_id[:, 0])
        inside = resize_like(foreground(mask), features["layer4"]) > 0
        return encoding | {"prior_object": (features["layer4"] * inside).flatten(2)}


class ReEncodingEFTNet(EFTNet):
    """The adaptation with such episodes."""

    Adapted = ReEncodedEpisode


def re_encoding_episode(adapter: EFTNet, episode: Episode) -> Prediction:
    """Adapt to one episode as the published code does, encoding anew in every round."""
    return ReEncodingEFTNet(adapter.model, adapter.options)(episode)


def random_episode(side: int, shots: int, seed: int) -> Episode:
    """Draw smooth images with an elliptic object on a fifth of their area."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1 + shots, 3, 15, 15, generator=generator)
    images = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    line = torch.linspace(-1, 1, side)
    ellipse = ((line[:, None] / 0.5).square() + (line / 0.5).square() <= 1).long()
    return Episode(
        query=images[:1],
        support=images[1:].view(1, 1, shots, 3, side, side),
        support_mask=ellipse.expand(1, 1, shots, side, side).clone(),
        class_id=torch.ones(1, 1, dtype=torch.int64),
    )


def balance(model: FewShotModel, episode: Episode, share: float = 0.2) -> None:
    """Shift the classifier of random weights until ``share`` of the query is foreground."""
    with torch.no_grad():
        meta = model(episode).parts["meta"]
        model.meta.decoder.classify[-1].bias[1] -= (meta[:, 1] - meta[:, 0]).quantile(1 - share)


def timed(
    call: Callable[[Episode], Prediction], episodes: Sequence[Episode]
) -> tuple[float, list[Prediction]]:
    """Return the median seconds per episode, and what came out."""
    seconds, predictions = [], []
    for episode in episodes:
        start = time.perf_counter()
        predictions.append(call(episode))
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), predictions


def main(given: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="msanet", choices=("bam", "msanet"))
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=473)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--episodes", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args(given)
    for shots in arguments.shots:
        torch.manual_seed(0)
        model = create_model(
            arguments.arch, backbone=arguments.backbone, shot=shots, image_size=arguments.size
        ).eval()
        episodes = [random_episode(arguments.size, shots, seed) for seed in range(arguments.episodes)]
        balance(model, episodes[0])
        adapter = create_adapter("eftnet", model, rounds=arguments.rounds, lr=1e-4)
        adapter(random_episode(97, shots, 0))  # torch imports and prepares much when it is first used
        with torch.no_grad():
            plain, _ = timed(model, episodes)
        ours, kept = timed(adapter, episodes)
        theirs, anew = timed(lambda episode, adapter=adapter: re_encoding_episode(adapter, episode), episodes)
        difference = max(float((a.logits - b.logits).abs().max()) for a, b in zip(kept, anew, strict=True))
        print(
            f"{arguments.arch} {arguments.backbone} {arguments.size} px {shots}-shot: plain {plain:.1f} s, "
            f"adapted {ours:.1f} s, encoding anew {theirs:.1f} s: {theirs / ours:.1f} times; "
            f"logits differ by {difference:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
