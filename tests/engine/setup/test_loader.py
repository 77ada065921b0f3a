"""Loaders of worker processes: errors in one line, and stops while a batch is waited for."""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset, _utils, get_worker_info

from fewseg.engine.setup import loader as module
from fewseg.engine.setup.interrupt import Interrupted, StopRequest
from fewseg.engine.setup.loader import Loader, worker_deaths
from fewseg.model.contract import Episode
from fewseg.util.errors import UserError


class Batch(NamedTuple):
    number: Tensor
    episode: Episode | None = None


class Numbers(Dataset):
    """Items 0, 1, ...; ``trouble`` happens before one of them."""

    def __init__(self, trouble=None, at=3):
        self.trouble, self.at = trouble, at

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if self.trouble is not None and index == self.at:
            self.trouble()
        return index


def join(items):
    image = torch.zeros(1, 3, 4, 4)
    episode = Episode(
        image, image[:, None, None], torch.zeros(1, 1, 1, 4, 4).long(), torch.zeros(1, 1).long()
    )
    return Batch(torch.tensor(items), episode)


def numbers(trouble=None, workers=2, persistent=False, at=3):
    return Loader(Numbers(trouble, at), collate_fn=join, num_workers=workers, persistent_workers=persistent)


def ignore() -> None:
    pass


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(module, "_LOOK", 0.1)
    monkeypatch.setattr(
        _utils, "MP_STATUS_CHECK_INTERVAL", 0.2
    )  # torch's patience with workers that are ended


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (1, False), (2, True)])
def test_every_batch_comes_in_every_epoch(workers, persistent):
    loader = numbers(workers=workers, persistent=persistent)
    for _ in range(2):
        batches = list(loader.batches(ignore))
        assert [batch.number.item() for batch in batches] == list(range(6))
        assert all(batch.number.is_shared() == bool(workers) for batch in batches)
        assert all(batch.episode.support_mask.is_shared() == bool(workers) for batch in batches)


def test_full_shared_memory_is_an_error_that_names_the_cure(monkeypatch):
    def refuse(_: Tensor) -> None:
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left (28)"
        )

    monkeypatch.setattr(Tensor, "share_memory_", refuse)
    assert len(list(numbers(workers=0).batches(ignore))) == 6
    with pytest.raises(UserError, match=r"No space left.*--shm-size.*workers 0"):
        list(numbers().batches(ignore))


def test_no_room_for_the_queues_is_an_error_that_names_the_cure(monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch.multiprocessing, "Event", refuse)
    with pytest.raises(UserError, match=r"No space left on device.*--shm-size.*workers 0"):
        list(numbers().batches(ignore))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGBUS])
def test_death_of_a_worker_is_one_line(number):
    def die() -> None:
        os.kill(os.getpid(), number)

    with (
        pytest.raises(UserError, match=r"DataLoader worker.*--shm-size.*workers 0") as caught,
        worker_deaths(),
    ):
        list(numbers(die).batches(ignore))
    assert "\n" not in str(caught.value)


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match="a mistake in the code") as caught, worker_deaths():
        raise RuntimeError("a mistake in the code")
    assert not isinstance(caught.value, UserError)


def stall() -> None:
    assert get_worker_info() is not None
    time.sleep(25)


def test_a_request_to_stop_is_heard_while_waiting():
    started = time.monotonic()
    with StopRequest() as stop, pytest.raises(Interrupted, match="SIGTERM"):
        for batch in numbers(stall, workers=1).batches(stop.check):
            if batch.number.item() == 2:
                os.kill(os.getpid(), signal.SIGTERM)
    assert time.monotonic() - started < 20


def test_slow_data_is_waited_for_and_reported(monkeypatch, caplog):
    monkeypatch.setattr(module, "_PATIENCE", 0.3)
    assert len(list(numbers(lambda: time.sleep(1.5)).batches(ignore))) == 6
    said = [record.getMessage() for record in caplog.records]
    assert 1 <= len(said) <= 3 and "no batch for" in said[0] and "Ctrl-C" in said[0]
