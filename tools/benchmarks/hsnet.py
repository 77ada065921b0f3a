"""Measure HSNet's matching against a plain rendering of the published centre-pivot 4D convolutions.

The plain rendering keeps query positions first, [B,C,hq,wq,hs,ws], permutes for each of the two 2D
convolutions and back, and correlates all support positions, masked out or not. Both run by turns in this one
process; on a CPU its processor time counts, which other load on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, group_norm, relu

from fewseg.model import create_model
from fewseg.model.contract import Encoding
from fewseg.model.layer.resize import resize
from fewseg.model.meta.hsnet.centre_pivot import CentrePivotConv, PivotGroupNorm
from fewseg.model.meta.hsnet.hsnet import HSNet
from fewseg.model.meta.hsnet.hypercorrelation import hypercorrelation
from tools.benchmarks.machine import add_machine, described, device_of
from tools.timing import CPU, by_turns, draw_episode


def plain_convolution(layer: CentrePivotConv, x: Tensor) -> Tensor:
    """Run ``layer`` by its definition on [B,C,hq,wq,hs,ws]."""
    batch, _, height, width = x.shape[:4]
    kept = x[..., :: layer.stride, :: layer.stride]
    cells = kept.shape[-2:]
    kept = kept.permute(0, 4, 5, 1, 2, 3).contiguous().flatten(0, 2)
    pivots = conv2d(kept, layer.query.weight, layer.query.bias, padding=layer.query.padding)
    pivots = pivots.unflatten(0, (batch, *cells)).permute(0, 3, 4, 5, 1, 2).contiguous()
    others = layer.support(x.permute(0, 2, 3, 1, 4, 5).contiguous().flatten(0, 2))
    return pivots + others.unflatten(0, (batch, height, width)).permute(0, 3, 1, 2, 4, 5).contiguous()


def plain_block(block: nn.Module, x: Tensor) -> Tensor:
    """Run a block of convolutions, normalisations and activations on [B,C,hq,wq,hs,ws]."""
    for layer in block.children():
        if isinstance(layer, CentrePivotConv):
            x = plain_convolution(layer, x)
        elif isinstance(layer, PivotGroupNorm):
            x = group_norm(x, layer.num_groups, layer.weight, layer.bias, layer.eps)
        else:
            x = relu(x)
    return x


def plain_squeeze(meta: HSNet, correlations: list[Tensor]) -> Tensor:
    """Squeeze correlations [B,L,hq,wq,hs,ws], coarse to fine, to [B,C,hq,wq]."""
    mixed = plain_block(meta.squeeze[0], correlations[0])
    for level in (1, 2):
        finer = plain_block(meta.squeeze[level], correlations[level])
        batch, channels, height, width, *cells = mixed.shape
        mixed = mixed.permute(0, 4, 5, 1, 2, 3).contiguous().view(-1, channels, height, width)
        mixed = resize(mixed, finer.shape[2:4]).view(batch, *cells, channels, *finer.shape[2:4])
        mixed = plain_block(meta.mix[level - 1], mixed.permute(0, 3, 4, 5, 1, 2).contiguous() + finer)
    return mixed.mean((4, 5))


def our_squeeze(meta: HSNet, correlations: list[Tensor]) -> Tensor:
    """Squeeze correlations [B,hs,ws,L,hq,wq], coarse to fine, without information on empty positions."""
    mixed: Tensor | None = None
    for level, x in enumerate(correlations):
        mixed = meta.mix_in(mixed, meta.squeeze[level](x), level)
    assert mixed is not None  # there are levels
    return mixed.mean((1, 2))


def plain_correlations(query: Encoding, support: list[Tensor]) -> list[Tensor]:
    """Correlate all positions of unit vectors [B,L,C,h,w] -> [B,L,hq,wq,hs,ws] of every level."""
    found = []
    for level, theirs in enumerate(support):
        own = query[f"level{level}"]
        layers = [
            torch.bmm(a.flatten(2).transpose(1, 2), b.flatten(2)).clamp(min=0)
            for a, b in zip(own.unbind(1), theirs.unbind(1), strict=True)
        ]
        shape = (len(own), *own.shape[3:], *theirs.shape[3:])
        found.append(torch.stack([layer.view(shape) for layer in layers], 1).contiguous())
    return found


def compare_matching(
    size: int,
    backbone: str,
    rounds: int,
    *,
    training: bool = False,
    device: torch.device = CPU,
    **options: Any,
) -> dict[str, float]:
    """Return seconds by name, and under ``difference`` the largest one of the squeezed maps.

    Args:
        size: side of the images in pixels.
        backbone: its name.
        rounds: runs of each that count.
        training: measure the convolutions' backward pass too.
        device: where to compute.
        options: of the model.
    """
    torch.manual_seed(0)
    model = create_model("hsnet", backbone=backbone, image_size=size, **options).eval().to(device)
    meta = model.meta
    assert isinstance(meta, HSNet)
    episode = draw_episode(size, 1).to(device)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    with torch.no_grad():
        query = model.encode_query(episode.query)
        support = model.encode_support(episode.support[:, 0, 0], episode.support_mask[:, 0, 0])
        whole = [_grid_of_vectors(support, level) for level in range(3)]
        ours = [
            hypercorrelation(query[f"level{n}"], support[f"object{n}"], support[f"occupied{n}"])
            for n in range(3)
        ]
        plain = [x.permute(0, 3, 4, 5, 1, 2).contiguous() for x in ours]
        shots = {name: tensor.unsqueeze(1) for name, tensor in support.items()}
        actions = {
            "plain convolutions": lambda: plain_squeeze(meta, plain),
            "our convolutions": lambda: our_squeeze(meta, ours),
            "plain matching": lambda: plain_squeeze(meta, plain_correlations(query, whole)),
            "our matching": lambda: meta.match(query, shots)["squeezed"][:, 0],
        }
        seconds, results = by_turns(actions, rounds, device=device, clock=clock, summary=min)
    first = results["plain convolutions"]
    seconds["difference"] = max(float((result - first).abs().max()) for result in results.values())
    if training:
        learning = {
            "plain training": lambda: plain_squeeze(meta, plain).sum().backward(),
            "our training": lambda: our_squeeze(meta, ours).sum().backward(),
        }
        seconds |= by_turns(learning, rounds, device=device, clock=clock, summary=min)[0]
    return seconds


def _grid_of_vectors(support: Encoding, level: int) -> Tensor:
    """Put the object's vectors back into their grid -> [B,L,C,hs,ws], zero elsewhere; for a single image."""
    vectors, occupied = support[f"object{level}"], support[f"occupied{level}"]
    grid = vectors.new_zeros(*vectors.shape[:3], occupied[0].numel())
    grid[..., occupied[0].flatten()] = vectors
    return grid.unflatten(3, occupied.shape[1:])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command line."""
    add_machine(parser, size=400, rounds=3)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--training", action="store_true", help="measure the backward pass too")


def run(args: argparse.Namespace) -> None:
    """Print the comparison."""
    device = device_of(args)
    print(described(device))
    found = compare_matching(args.size, args.backbone, args.rounds, training=args.training, device=device)
    clock = "processor seconds" if device.type == "cpu" else "seconds"
    print(f"HSNet, {args.backbone}, {args.size} px, 1-shot; {clock}")
    for what in ("convolutions", "matching", "training"):
        if f"our {what}" in found:
            plain, ours = found[f"plain {what}"], found[f"our {what}"]
            print(f"{what:14} plain {plain:6.3f}, ours {ours:6.3f}: {plain / ours:.1f} times faster")
    print(f"largest difference of the squeezed maps: {found['difference']:.1e}")
