"""Transformer layers on feature maps: attention to a downsampled grid, feed-forward with a 3x3 convolution.

E. Xie et al., "SegFormer", NeurIPS 2021, sections 3.1 and 3.2; without biases in the projections.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

EPSILON = 1e-6
"""The epsilon of every layer normalisation."""


def to_tokens(x: Tensor) -> Tensor:
    """[B,C,h,w] -> [B,h*w,C]."""
    return x.flatten(2).transpose(1, 2)


def to_map(tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
    """[B,h*w,C] -> [B,C,h,w] for ``grid`` (h, w)."""
    return tokens.transpose(1, 2).unflatten(2, grid)


class Projections(nn.Module):
    """The linear maps of a multi-head attention.

    Args:
        channels: channels of the tokens.
        heads: number of heads.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (
            nn.Linear(channels, channels, bias=False) for _ in range(4)
        )

    def split(self, tokens: Tensor) -> Tensor:
        """[B,T,C] -> [B,heads,T,C/heads]."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def join(self, x: Tensor) -> Tensor:
        """[B,heads,T,C/heads] -> [B,T,C], with the output projection."""
        return self.output(x.transpose(1, 2).flatten(2))


class SelfAttention(Projections):
    """Attention of every position to the grid downsampled by the factor ``reduction``."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__(channels, heads)
        self.scale = 1 / ((channels // heads) ** 0.5 + 1e-9)
        self.reduce = nn.Conv2d(channels, channels, reduction, reduction) if reduction > 1 else None
        self.norm = nn.LayerNorm(channels, EPSILON) if reduction > 1 else None

    def forward(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        """[B,h*w,C] -> [B,h*w,C]."""
        attended = tokens
        if self.reduce is not None and self.norm is not None:
            attended = self.norm(to_tokens(self.reduce(to_map(tokens, grid))))
        projected = (self.query(tokens), self.key(attended), self.value(attended))
        query, key, value = (self.split(tensor) for tensor in projected)
        return self.join(scaled_dot_product_attention(query, key, value, scale=self.scale))


def feed_forward(channels: int, hidden: int, dropout: float) -> nn.Sequential:
    """Return a feed-forward network on maps: two 1x1 convolutions with a depthwise 3x3 one between them."""
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1),
        nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Conv2d(hidden, channels, 1),
        nn.Dropout(dropout),
    )


class TransformerLayer(nn.Module):
    """Attention and feed-forward network, each after a normalisation and with a residual connection.

    Args:
        attention: the layers of the attention.
        channels: channels of the tokens.
        dropout: dropout rate after the attention and in the feed-forward network.
    """

    def __init__(self, attention: nn.Module, channels: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, EPSILON)
        self.attention = attention
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(channels, EPSILON)
        self.feed = feed_forward(channels, 4 * channels, dropout)

    def add_feed_forward(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Apply the feed-forward network to tokens [B,h*w,C]."""
        return tokens + to_tokens(self.feed(to_map(self.norm2(tokens), grid)))


class EncoderLayer(TransformerLayer):
    """A layer of self-attention."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__(SelfAttention(channels, heads, reduction), channels)

    def forward(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        """[B,h*w,C] -> [B,h*w,C]."""
        tokens = tokens + self.dropout(self.attention(self.norm1(tokens), grid))
        return self.add_feed_forward(tokens, grid)


class PatchEmbed(nn.Module):
    """A convolution, which may downsample, and a normalisation over the channels."""

    def __init__(self, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(channels, channels, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(channels, EPSILON)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """Return the tokens [B,h'*w',C] of maps [B,C,h,w], and their grid (h', w')."""
        x = self.projection(x)
        return self.norm(to_tokens(x)), tuple(x.shape[-2:])


class EncoderStage(nn.Module):
    """Patch embedding, encoder layers and a final normalisation, on maps."""

    def __init__(
        self, channels: int, heads: int, *, kernel: int, stride: int, reduction: int, depth: int = 2
    ) -> None:
        super().__init__()
        self.embed = PatchEmbed(channels, kernel, stride)
        self.layers = nn.ModuleList(EncoderLayer(channels, heads, reduction) for _ in range(depth))
        self.norm = nn.LayerNorm(channels, EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,C,h',w']."""
        tokens, grid = self.embed(x)
        for layer in self.layers:
            tokens = layer(tokens, grid)
        return to_map(self.norm(tokens), grid)


def layer_names(ours: str, theirs: str) -> dict[str, str]:
    """Return prefix under a transformer layer ``ours`` -> its prefix in mmcv, under ``theirs``."""
    projections = ("query", "key", "value", "output")
    inner = {
        **{f"attention.{name}": f"attn.attn.linear_{name[0]}" for name in projections},
        "attention.reduce": "attn.sr",
        "attention.norm": "attn.norm",
        "feed": "ffn.layers",
        "norm1": "norm1",
        "norm2": "norm2",
    }
    return {f"{ours}.{own}": f"{theirs}.{other}" for own, other in inner.items()}
