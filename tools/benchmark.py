"""Measure what FewSeg costs, always beside a plain rendering of the published code in the same run.

python tools/benchmark.py evaluation              # encode once against the published loop, 473 px, ResNet-50
python tools/benchmark.py step                    # a stage-2 training step against the published one
python tools/benchmark.py loader                  # images that are read per second, and that networks take
python tools/benchmark.py adapt                   # EFTNet's adaptation against encoding anew
python tools/benchmark.py hsnet                   # HSNet's 4D convolutions against the published form
python tools/benchmark.py schedule                # the order of a study's jobs over 64 cards, on a clock
python tools/benchmark.py estimate --tflops 60 --bandwidth 4.8 --launch 5    # what a GPU would need

All but the last two measure the CPU, or a GPU with --device cuda. Machines drift, so everything is measured
by turns and medians are printed; quote the ratios.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

from fewseg.engine.setup.script import run_script
from fewseg.util.command_line import command_line
from tools.benchmarks import adapt, estimate, evaluation, hsnet, loader, schedule, step

COMMANDS = {
    "evaluation": evaluation,
    "step": step,
    "loader": loader,
    "adapt": adapt,
    "hsnet": hsnet,
    "schedule": schedule,
    "estimate": estimate,
}
"""Sub-commands, each with ``add_arguments`` and ``run``."""


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line names."""
    parser = command_line(__doc__)
    commands = parser.add_subparsers(required=True, metavar="WHAT")
    for name, module in COMMANDS.items():
        title = (module.__doc__ or "").splitlines()[0]
        command = commands.add_parser(name, help=title, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    args.run(args)


if __name__ == "__main__":
    run_script(main)
