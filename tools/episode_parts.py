"""The parts that an episode's cost consists of: encoding the query, encoding a support, decoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.flop_counter import FlopCounterMode

from fewseg.model.contract import Episode
from fewseg.model.encoding import group_encoding, repeat_encoding
from fewseg.model.fewshot import FewShotModel

QUERY, SUPPORT, DECODE = "encode a query", "encode a support", "decode an episode"
COMPARE = "compare a query with a support"

Function = Callable[..., Any]


def flops_of(action: Callable[[], Any]) -> tuple[int, Any]:
    """Run ``action`` and return the FLOPs of its convolutions and matrix products, and its result."""
    with FlopCounterMode(display=False) as counter:
        result = action()
    return counter.get_total_flops(), result


class EpisodeParts:
    """The parts of an evaluation, each with its FLOPs and as an action that can be timed.

    One support of every episode is encoded, and its encoding repeated, because all supports cost the same.

    Args:
        model: a network in evaluation mode.
        episode: B episodes with one way and K supports each, on the network's device.
        prepare: what is done to the functions before they are timed: ``torch.compile``.
        compared: whether comparing a query with one support is a part of its own, which decoding does not
            repeat: a test on a CPU does it once for all episodes with both.

    Attributes:
        flops: name of a part -> its FLOPs, for the B queries, B supports or B episodes.
        actions: name of a part -> what carries it out.
    """

    def __init__(
        self,
        model: FewShotModel,
        episode: Episode,
        prepare: Callable[[Function], Function] = lambda f: f,
        *,
        compared: bool = False,
    ) -> None:
        first = episode.support[:, 0, 0], episode.support_mask[:, 0, 0], episode.class_id[:, 0]
        batch, shots = len(episode.query), episode.shots
        query_flops, query = flops_of(lambda: model.encode_query(episode.query))
        support_flops, support = flops_of(lambda: model.encode_support(*first))
        compare_flops, pair = flops_of(lambda: model.comparisons(query, support) if compared else {})
        supports = group_encoding(repeat_encoding(support | pair, shots), batch, 1, shots)
        decode_flops, self.prediction = flops_of(lambda: model.decode(query, supports, episode.size))
        self.flops = {QUERY: query_flops, SUPPORT: support_flops, DECODE: decode_flops}
        encode_query, encode_support = prepare(model.encode_query), prepare(model.encode_support)
        decode = prepare(model.decode)
        self.actions: dict[str, Callable[[], Any]] = {
            QUERY: lambda: encode_query(episode.query),
            SUPPORT: lambda: encode_support(*first),
            DECODE: lambda: decode(query, supports, episode.size),
        }
        if compared:
            self.flops[COMPARE] = compare_flops
            self.actions[COMPARE] = lambda: model.comparisons(query, support)
