"""Centre-pivot 4D convolution (Min et al., "Hypercorrelation Squeeze", ICCV 2021, section 4.2), for speed.

A 4D kernel is reduced to the two 2D kernels that cross at its centre: one convolves over query positions at a
fixed support position, the other over support positions at a fixed query position. In all tensors the support
grid comes before the channels, [B,hs,ws,C,hq,wq]. The first convolution is therefore a plain 2D convolution
over a batch of support positions, the second a matrix product with contiguous memory, and no tensor needs to
be permuted.

On a GPU, the second convolution is a 3D one over both support axes and all query positions, in place of one
small product per support position; and no position is skipped, because the host would have to wait for the
list of those that are occupied.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d, conv3d, max_pool2d

from fewseg.model import waiting

Window = tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]
"""An output cell, the input cells in its window, and the weights of the kernel that belong to them."""


class CentrePivotConv(nn.Module):
    """One 4D convolution that keeps the query grid and downsamples the support grid.

    Args:
        inputs, outputs: channels of input and output.
        kernel: side of both 2D kernels, odd.
        stride: stride over the support positions; the stride over the query positions is 1.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.query = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
        self.support = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)

    def forward(self, x: Tensor, occupied: Tensor | None = None) -> Tensor:
        """[B,hs,ws,inputs,hq,wq] -> [B,ceil(hs/stride),ceil(ws/stride),outputs,hq,wq].

        Args:
            x: the tensor.
            occupied: bool [B,hs,ws], False where ``x`` is zero for every query position. Outputs whose window
                holds only such positions are not computed by convolution; on a GPU they are.
        """
        if waiting.would_wait(x):
            return self._over_query(x, None) + self._over_support(x)
        pivots = self._over_query(x, occupied)
        reached = None if occupied is None else self._reached(occupied)
        windows = tuple(self._windows(x.shape[1], x.shape[2], reached))
        weight = self.support.weight.to(pivots.dtype)
        flat = _SupportConvolution.apply(pivots.flatten(4), x.flatten(4).to(pivots.dtype), weight, windows)
        return flat.unflatten(4, x.shape[4:])

    def _over_query(self, x: Tensor, occupied: Tensor | None) -> Tensor:
        """Convolve over the query at the support positions that the stride selects, and add both biases."""
        assert self.query.bias is not None and self.support.bias is not None  # built with one
        bias = self.query.bias + self.support.bias
        x = x[:, :: self.stride, :: self.stride]
        positions = x.shape[:3]
        x = x.flatten(0, 2)
        kept = None if occupied is None else occupied[:, :: self.stride, :: self.stride].flatten()
        if kept is None or kept.all():
            out = conv2d(x, self.query.weight, bias, padding=self.query.padding)
        else:
            convolved = conv2d(x[kept], self.query.weight, bias, padding=self.query.padding)
            empty = bias.to(convolved.dtype)[None, :, None, None]
            out = empty.repeat(len(x), 1, *x.shape[-2:]).index_put((kept,), convolved)
        return out.unflatten(0, positions)

    def _over_support(self, x: Tensor) -> Tensor:
        """Convolve over the support positions, all at once and without a bias."""
        maps, pad = x.flatten(4).permute(0, 3, 1, 2, 4), self.kernel // 2
        stride = (self.stride, self.stride, 1)
        convolved = conv3d(maps, self.support.weight.unsqueeze(4), None, stride, (pad, pad, 0))
        return convolved.permute(0, 2, 3, 1, 4).unflatten(4, x.shape[4:])

    def _reached(self, occupied: Tensor) -> list[list[bool]]:
        """Return for every output cell whether any image has an occupied position in its window."""
        reached = max_pool2d(occupied.any(0).float()[None], self.kernel, self.stride, self.kernel // 2)
        return (reached[0] > 0).tolist()

    def _windows(self, height: int, width: int, reached: list[list[bool]] | None) -> Iterator[Window]:
        """Yield the windows, without padding, of all output cells with an occupied position."""
        reach = self.kernel // 2
        for row, top in enumerate(range(0, height, self.stride)):
            rows, row_taps = _overlap(top, height, reach)
            for column, left in enumerate(range(0, width, self.stride)):
                if reached is None or reached[row][column]:
                    columns, column_taps = _overlap(left, width, reach)
                    yield (row, column), (rows, columns), (row_taps, column_taps)


class _SupportConvolution(torch.autograd.Function):
    """Add a convolution over the support grid to a tensor.

    The gradient is written by hand, because autograd would keep a copy of every window.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, x: Tensor, weight: Tensor, windows: tuple[Window, ...]) -> Tensor:
        """Add the convolution of ``x`` [B,hs,ws,C,Q] with ``weight`` [O,C,k,k] to ``out`` [B,hs',ws',O,Q]."""
        ctx.mark_dirty(out)
        ctx.save_for_backward(x, weight)
        ctx.windows = windows
        for (row, column), cells, taps in windows:
            out[:, row, column] += _taps(weight, taps) @ _cells(x, cells)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x = torch.zeros_like(x) if ctx.needs_input_grad[1] else None
        to_weight = torch.zeros_like(weight) if ctx.needs_input_grad[2] else None
        for (row, column), (rows, columns), taps in ctx.windows:
            to_cell = gradient[:, row, column]
            if to_x is not None:
                window = to_x[:, rows, columns]
                window += (_taps(weight, taps).T @ to_cell).view_as(window)
            if to_weight is not None:
                part = to_weight[:, :, taps[0], taps[1]]
                product = (to_cell @ _cells(x, (rows, columns)).transpose(1, 2)).sum(0)
                part += product.view(len(part), *part.shape[2:], part.shape[1]).permute(0, 3, 1, 2)
        return gradient, to_x, to_weight, None


class PivotGroupNorm(nn.GroupNorm):
    """Group normalisation of tensors [B,hs,ws,C,hq,wq], with statistics over both grids."""

    def forward(self, x: Tensor) -> Tensor:
        maps = x.flatten(4)
        mean = self._grouped(maps.mean(4))
        square = self._grouped(torch.linalg.vector_norm(maps, dim=4).square() / maps.shape[4])
        deviation = (square - mean.square()).clamp_min(0).add(self.eps).sqrt()
        members = self.num_channels // self.num_groups
        scale = self.weight / deviation.repeat_interleave(members, 1)
        shift = self.bias - mean.repeat_interleave(members, 1) * scale
        return torch.addcmul(_over_maps(shift), x, _over_maps(scale))

    def _grouped(self, means: Tensor) -> Tensor:
        """Average [B,hs,ws,C] over the support cells and the channels of every group -> [B,groups]."""
        return means.unflatten(3, (self.num_groups, -1)).mean((1, 2, 4))


def squeeze_block(inputs: int, layers: tuple[tuple[int, int, int], ...], groups: int = 4) -> nn.Sequential:
    """Return centre-pivot convolutions (channels, kernel, stride), each with normalisation and ReLU."""
    chain: list[nn.Module] = []
    for outputs, kernel, stride in layers:
        chain.append(CentrePivotConv(inputs, outputs, kernel, stride))
        chain += [PivotGroupNorm(groups, outputs), nn.ReLU(inplace=True)]
        inputs = outputs
    return nn.Sequential(*chain)


def _overlap(centre: int, length: int, reach: int) -> tuple[slice, slice]:
    """Return the existing cells within ``reach`` of ``centre``, and the kernel weights that apply to them."""
    first, last = max(0, centre - reach), min(length, centre + reach + 1)
    return slice(first, last), slice(first - centre + reach, last - centre + reach)


def _cells(x: Tensor, cells: tuple[slice, slice]) -> Tensor:
    """[B,hs,ws,C,Q] -> [B,n*C,Q] of the n cells."""
    return x[:, cells[0], cells[1]].flatten(1, 3)


def _taps(weight: Tensor, taps: tuple[slice, slice]) -> Tensor:
    """[O,C,k,k] -> [O,n*C] of n weights of the kernel."""
    return weight[:, :, taps[0], taps[1]].permute(0, 2, 3, 1).flatten(1)


def _over_maps(values: Tensor) -> Tensor:
    return values[:, None, None, :, None, None]
