"""A GPU that only pretends: tensors stay in main memory, and it is known which of them "lie on the GPU".

    with pretended_gpu() as gpu:
        model.to("cuda")
        training_step(model, episode.to("cuda"), optimizer)
    print(gpu.listed())    # what made the host wait, and the project's lines that asked for it

What CUDA refuses is refused too: operations on tensors of both places, ``numpy()`` of a tensor on the GPU, a
generator of the other place, and products of integers. So is reading a copy from the GPU that has not ended.
Whatever would make the host wait for the GPU is counted.

Two modes work together: the calls of Python say where a tensor is to lie (``device=``, ``to``), and the
operations below them, those of backward passes and optimizers included, give their results the place of their
arguments. ``python -m tests.methods_on_gpu bam step`` lists the waits of a method.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from tests.pretended.calls import Calls
from tests.pretended.cuda import cuda_of
from tests.pretended.memory import MixtureError, PretendedGpu
from tests.pretended.operations import Operations

__all__ = ["MixtureError", "PretendedGpu", "pretended_gpu"]


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Pretend one GPU, in this thread and in those that are started meanwhile."""
    gpu, run = PretendedGpu(), threading.Thread.run

    def run_in_modes(thread: threading.Thread) -> None:
        with Calls(gpu), Operations(gpu):
            run(thread)

    with cuda_of(gpu), patch.object(threading.Thread, "run", run_in_modes), Calls(gpu), Operations(gpu):
        yield gpu
