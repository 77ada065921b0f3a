"""The forms in which a network is measured: precision, ``torch.compile``, folded BatchNorms."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from fewseg.util.errors import UserError


@dataclass(frozen=True)
class Form:
    """A form.

    Attributes:
        reduced: whether convolutions and products are computed in bfloat16, under autocast.
        tf32: whether a GPU rounds their float32 inputs to TF32's 10 bits. PyTorch does so in convolutions
            unless told otherwise; ``float32`` here never does.
        compiled: whether ``torch.compile`` is applied, or its mode; ``reduce-overhead`` uses CUDA graphs.
        folded: whether BatchNorms are folded into convolutions, as tests and predictions do.
    """

    reduced: bool = False
    tf32: bool = False
    compiled: bool | str = False
    folded: bool = True

    def autocast(self, device: torch.device) -> torch.autocast:
        """Return the context in which networks compute in this form's precision."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.reduced)

    @contextmanager
    def rounding(self) -> Iterator[None]:
        """Let a GPU round the inputs of float32 operations, or not."""
        products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
        before = products.allow_tf32, convolutions.allow_tf32
        try:
            products.allow_tf32 = convolutions.allow_tf32 = self.tf32
            yield
        finally:
            products.allow_tf32, convolutions.allow_tf32 = before

    def rounded(self, action: Callable[[], Any]) -> Callable[[], Any]:
        """Return ``action`` with this form's rounding; it opens the autocast itself, as a step must."""

        def run() -> Any:
            with self.rounding():
                return action()

        return run

    def action(self, device: torch.device, action: Callable[[], Any]) -> Callable[[], Any]:
        """Return ``action`` as it runs in this form's precision."""

        def run() -> Any:
            with self.rounding(), self.autocast(device):
                return action()

        return run


FORMS = {
    "float32": Form(),
    "tf32": Form(tf32=True),
    "bfloat16": Form(reduced=True),
    "compiled": Form(compiled=True),
    "compiled-bfloat16": Form(reduced=True, compiled=True),
    "cuda-graphs": Form(reduced=True, compiled="reduce-overhead"),
    "unfolded": Form(folded=False),
}
TRAINING_ONLY, TESTING_ONLY = ("cuda-graphs",), ("unfolded",)


def add_forms(parser: argparse.ArgumentParser, without: Sequence[str]) -> None:
    """Add the choice among all forms but some."""
    names = [name for name in FORMS if name not in without]
    parser.set_defaults(all_forms=names)
    parser.add_argument(
        "--forms", nargs="+", choices=names, help="default: all on a GPU, float32 and bfloat16 on a CPU"
    )


def chosen_forms(args: argparse.Namespace, device: torch.device) -> dict[str, Form]:
    """Return the forms that the command line names, ``float32`` first, with which all are compared.

    Raises:
        UserError: the device does not have one of them.
    """
    default = args.all_forms if device.type == "cuda" else ["float32", "bfloat16"]
    names = args.forms or default
    if "tf32" in names and device.type != "cuda":
        raise UserError("--forms tf32: only a GPU computes in TF32; leave it out, or add --device cuda")
    return {name: form for name, form in FORMS.items() if name in {"float32", *names}}
