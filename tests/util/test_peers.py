"""A process notices that another one has ended, unless that one had said that its work was done."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing import AuthenticationError
from typing import Any

import pytest

from fewseg.util import peers
from fewseg.util.peers import LOST, PeerWatch

PATIENCE = 30.0

Work = Callable[[PeerWatch], int]


def run(*works: Work) -> list[int]:
    """Run a process for each work, the main one first; return their exit statuses, which the works return."""
    hears, tells = os.pipe()

    def from_main(value: Any) -> Any:
        port, key = value
        if port is not None:
            os.write(tells, (len(works) - 1) * (port.to_bytes(2, "big") + key))
            return value
        told = os.read(hears, 34)
        return int.from_bytes(told[:2], "big"), told[2:]

    children = []
    for rank, work in enumerate(works):
        child = os.fork()
        if not child:
            status = 1
            try:
                status = work(PeerWatch(rank, len(works), "127.0.0.1", from_main))
            finally:
                os._exit(status)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def connect(watch: PeerWatch) -> None:
    """Wait until a process is connected with the main one, or the main one with two others."""
    until = time.monotonic() + PATIENCE
    while len(watch._peers) < (1 if watch._rank else 2) and time.monotonic() < until:
        time.sleep(0.05)


def dies(watch: PeerWatch) -> int:
    connect(watch)
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def notices(watch: PeerWatch) -> int:
    lost = watch.lost(PATIENCE)
    return 99 if lost is None else 10 + lost


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_all_others_notice_who_has_ended(victim: int) -> None:
    works = [notices] * 3
    works[victim] = dies
    statuses = run(*works)
    assert statuses.pop(victim) == -signal.SIGKILL
    assert statuses == [10 + victim] * 2


def test_a_process_whose_work_is_done_is_not_missed() -> None:
    def leaves(watch: PeerWatch) -> int:
        connect(watch)
        watch.leave()
        return 0

    def stays(watch: PeerWatch) -> int:
        if watch._rank:
            connect(watch)
        missed = watch.lost(1)
        watch.leave()
        return 99 if missed is None else missed

    assert run(stays, leaves, stays) == [99, 0, 99]
    assert run(leaves, stays, stays) == [0, 99, 99]


def test_a_process_that_waits_for_another_one_is_ended(monkeypatch, capfd) -> None:
    def waits(watch: PeerWatch) -> int:
        time.sleep(PATIENCE)
        return 0

    monkeypatch.setattr(peers, "GRACE", 0.3)
    assert run(waits, dies) == [LOST, -signal.SIGKILL]
    assert capfd.readouterr().err == "process 0 is ended because process 1 had ended\n"

    def saves(watch: PeerWatch) -> int:
        watch.take_time()
        time.sleep(1.5)
        return notices(watch)

    assert run(saves, dies) == [11, -signal.SIGKILL]


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="Linux has them")
def test_a_machine_that_is_gone_is_noticed_after_half_a_minute() -> None:
    def asks(watch: PeerWatch) -> int:
        connect(watch)
        for connection in watch._peers:
            with socket.socket(fileno=os.dup(connection.fileno())) as own:
                assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                idle, interval, count = (
                    own.getsockopt(socket.IPPROTO_TCP, option)
                    for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                )
                assert idle + interval * count == 30
        time.sleep(1)  # the others connect
        return 0

    assert run(asks, asks, asks) == [0, 0, 0]


def test_a_stranger_is_not_missed(monkeypatch) -> None:
    client = peers.Client

    def after_strangers(address: tuple[str, int], authkey: bytes) -> Any:
        with socket.create_connection(address) as stranger:
            stranger.sendall(b"GET / HTTP/1.0\r\n\r\n")
        with pytest.raises((AuthenticationError, OSError, EOFError)):
            client(address, authkey=b"wrong")
        return client(address, authkey=authkey)

    monkeypatch.setattr(peers, "Client", after_strangers)
    assert run(notices, dies) == [11, -signal.SIGKILL]
