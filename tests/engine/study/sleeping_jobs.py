"""Carry out a study whose jobs only sleep; ``test_concurrent.py`` starts this twice at once.

Every job writes a line into ``journal`` at its begin, with its process and the name of who started it, and
one at its end. The pool, the launcher and the claims are the real ones.
"""

from __future__ import annotations

import random
import sys
import time

from fewseg.engine.study.description.expansion import jobs_of
from fewseg.engine.study.description.jobs import Job
from fewseg.engine.study.description.study_file import read_study
from fewseg.engine.study.running import local

JOURNAL = "journal"


def main(file: str, owner: str) -> None:
    """Carry out the study of a file, four jobs at a time."""
    jobs = jobs_of(read_study(file))
    root = jobs.study.root

    def command(job: Job) -> list[str]:
        seconds = random.Random(job.key).uniform(0.05, 0.2)
        begin = f'echo "begin {job.key} {owner} $$" >> {JOURNAL}; sleep {seconds}'
        return ["sh", "-c", f'cd "{root}"; {begin}; echo "end {job.key}" >> {JOURNAL}; : > {job.key}.done']

    def is_done(job: Job, *_: object) -> bool:
        return (root / f"{job.key}.done").exists()

    local.command_of = command
    local.is_done = is_done
    local.done_jobs = lambda jobs: {key for key, job in jobs.jobs.items() if is_done(job)}
    local._POLL = 0.02
    (root / f"{owner}.ready").touch()
    while len([*root.glob("*.ready")]) < 2:  # both begin at once
        time.sleep(0.01)
    errors = local.run_local(jobs, 4, seconds=lambda job: 1.0)
    print(errors)
    sys.exit(bool(errors))


if __name__ == "__main__":
    main(*sys.argv[1:])
