"""Measure what FewSeg costs, always beside a plain rendering of the published code in the same run.

python tools/benchmark.py evaluation --shot 1     # encode once against one by one, 473 px, ResNet-50
python tools/benchmark.py step                    # one stage-2 training step
python tools/benchmark.py loader                  # samples per second of the training data
python tools/benchmark.py adapt                   # EFTNet's adaptation against encoding anew
python tools/benchmark.py hsnet                   # HSNet's 4D convolutions against the published form
python tools/benchmark.py schedule                # the order of a study's jobs over 64 cards, on a clock

Machines drift, so everything is measured by turns and medians are printed; quote the ratios.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fewseg.util.interpreter  # noqa: F401 (first: it refuses a Python without the requirements)

import torch

from fewseg.engine.setup.script import run_script
from fewseg.engine.training.step import training_step
from fewseg.model import create_model
from fewseg.model.encoding import group_encoding, stack_encodings
from fewseg.util.command_line import command_line
from tools import benchmark_adapt, benchmark_hsnet, benchmark_loader, benchmark_schedule
from tools.plain_bam import plain_forward
from tools.timing import by_turns, draw_episode

OTHERS = {
    "loader": benchmark_loader,
    "adapt": benchmark_adapt,
    "hsnet": benchmark_hsnet,
    "schedule": benchmark_schedule,
}
"""Benchmarks in files of their own, each with ``add_arguments`` and ``run``."""

PASCAL_QUERIES, PASCAL_SUPPORTS = 364, 390
"""Test images of PASCAL-5i fold 0, and about as many (image, class) pairs as its episodes use as supports."""


def measure_evaluation(shot: int, side: int, episodes: int, rounds: int) -> None:
    """Compare encode-once evaluation with both one-by-one loops and extrapolate to a whole run."""
    model = create_model("bam", shot=shot, image_size=side).eval()
    fast = create_model("bam", shot=shot, image_size=side).eval()
    fast.load_state_dict(model.state_dict())
    fast.to(memory_format=torch.channels_last)
    episode = draw_episode(side, shot)
    with torch.inference_mode():
        deviation = (plain_forward(model, episode) - fast(episode).logits).abs().max().item()
        query = fast.encode_query(episode.query)
        supports = [
            fast.encode_support(episode.support[:, 0, k], episode.support_mask[:, 0, k]) for k in range(shot)
        ]
        support = group_encoding(stack_encodings(supports), 1, 1, shot)
        seconds, _ = by_turns(
            {
                "published loop, one episode": lambda: plain_forward(model, episode),
                "our model, one episode": lambda: fast(episode),
                "encode a query": lambda: fast.encode_query(episode.query),
                "encode a support": lambda: fast.encode_support(
                    episode.support[:, 0, 0], episode.support_mask[:, 0, 0]
                ),
                "decode an episode": lambda: fast.decode(query, support, (side, side)),
            },
            rounds,
        )
    for name, value in seconds.items():
        print(f"{name:32}{value:8.3f} s")
    once = PASCAL_QUERIES * seconds["encode a query"] + PASCAL_SUPPORTS * seconds["encode a support"]
    once += episodes * seconds["decode an episode"]
    print(f"{episodes} episodes over {PASCAL_QUERIES} images, encode once: {once:.0f} s (extrapolated)")
    for name in ("published loop, one episode", "our model, one episode"):
        print(f"  {episodes * seconds[name] / once:.1f} times faster than {name.split(',')[0]}, one by one")
    print(f"largest deviation of the logits from the published loop: {deviation:.1e}")
    print(f"peak memory {peak_gib():.1f} GiB")


def measure_step(side: int, batch: int, rounds: int) -> None:
    """Time one optimisation step of stage 2."""
    model = create_model("bam", image_size=side).train().to(memory_format=torch.channels_last)
    episode = draw_episode(side, 1, batch)
    groups = [{"params": group} for group in model.param_groups().values()]
    optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9)
    seconds, _ = by_turns({"step": lambda: training_step(model, episode, optimizer)}, rounds)
    taken = f"{seconds['step']:.2f} s; peak memory {peak_gib():.1f} GiB"
    print(f"stage-2 step, batch {batch}, {side} px: {taken}")


def peak_gib() -> float:
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line names."""
    parser = command_line(__doc__)
    commands = parser.add_subparsers(required=True, metavar="WHAT")
    evaluation = commands.add_parser("evaluation", help="encode once against one by one")
    evaluation.add_argument("--shot", type=int, default=1)
    evaluation.add_argument("--episodes", type=int, default=5000, help="of the run to extrapolate to")
    evaluation.set_defaults(run=lambda g: measure_evaluation(g.shot, g.size, g.episodes, g.rounds))
    step = commands.add_parser("step", help="one stage-2 training step")
    step.add_argument("--batch", type=int, default=2)
    step.set_defaults(run=lambda args: measure_step(args.size, args.batch, args.rounds))
    for command in (evaluation, step):
        command.add_argument("--size", type=int, default=473, help="side of the input in pixels")
        command.add_argument("--rounds", type=int, default=5)
    for name, other in OTHERS.items():
        command = commands.add_parser(name, help=(other.__doc__ or "").splitlines()[0])
        other.add_arguments(command)
        command.set_defaults(run=other.run)
    args = parser.parse_args(argv)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    args.run(args)


if __name__ == "__main__":
    run_script(main)
