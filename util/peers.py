"""Notice that another process of a run has ended, however it ended.

Every process is connected to the main one. The kernel closes the connections of a process that ends, and
keep-alive packets tell when its machine is gone. Without them, a process that works by itself for minutes,
such as in a validation, would not notice before it communicates next, and one that waits on a GPU not before
NCCL's ten minutes are over.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, wait
from threading import Event, Thread
from typing import Any

LOST = 3
"""Exit status of a process that ends because another one has ended."""

GRACE = 25.0
"""Seconds from noticing that a process has ended until this one is ended too, wherever it waits."""

_KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
"""Seconds and counts, by which a machine that is gone is noticed after half a minute."""

_DONE = b"done"
_LONGEST = 16


class PeerWatch:
    """Watches the other processes of a run from a thread.

    All processes must create it together. Where they cannot connect, they go on without being watched.

    Args:
        rank, processes: number of this process, and of all of them.
        host: name or address of the main process's machine.
        from_main: returns the main process's value in every process.
    """

    def __init__(self, rank: int, processes: int, host: str, from_main: Callable[[Any], Any]) -> None:
        self._rank, self._peers = rank, dict[Connection, int]()
        self._lost: int | None = None
        self._noticed, self._ends = Event(), Event()
        key = secrets.token_bytes(32)  # keeps out whoever else finds the port
        listener = _listener(processes, key) if rank == 0 else None
        port, key = from_main((listener.address[1] if listener else None, key))
        if listener is not None:
            Thread(target=self._watch_all, args=(listener, processes - 1), daemon=True).start()
        elif port is not None:
            Thread(target=self._watch_main, args=((host, port), key), daemon=True).start()

    def lost(self, patience: float = 0) -> int | None:
        """Return the number of a process that has ended before its work was done, None if there is none.

        Args:
            patience: seconds to wait for the news.
        """
        self._noticed.wait(patience)
        return self._lost

    def take_time(self) -> None:
        """Let this process end by itself from now on."""
        self._ends.set()

    def leave(self) -> None:
        """Tell the others that this process ends because its work is done."""
        self._ends.set()
        self._send(_DONE)

    def _watch_all(self, listener: Listener, others: int) -> None:
        """Watch the other processes from the main one, and tell them if one has ended."""
        with listener:
            while len(self._peers) < others:
                try:
                    connection = listener.accept()
                    _keep_alive(connection)
                    self._peers[connection] = int(connection.recv_bytes(_LONGEST))
                except (AuthenticationError, EOFError, OSError, ValueError):  # a stranger
                    time.sleep(0.1)
        while self._peers:
            ready = wait(list(self._peers))
            for connection in [peer for peer in self._peers if peer in ready]:
                rank = self._peers.pop(connection)
                if _received(connection) != _DONE:
                    self._send(str(rank).encode())
                    self._end(rank)

    def _watch_main(self, address: tuple[str, int], key: bytes) -> None:
        """Watch the main process, which also tells if another one has ended."""
        try:
            connection = Client(address, authkey=key)
            connection.send_bytes(str(self._rank).encode())
        except (AuthenticationError, EOFError, OSError):
            return
        _keep_alive(connection)
        self._peers[connection] = 0
        message = _received(connection)
        if message != _DONE:
            self._end(int(message or b"0"))

    def _send(self, message: bytes) -> None:
        for connection in list(self._peers):
            try:
                connection.send_bytes(message)
            except OSError:
                continue  # it has ended too

    def _end(self, rank: int) -> None:
        """Note the loss of a process, and end this one if it does not do so itself."""
        self._lost = rank
        self._noticed.set()
        if not self._ends.wait(GRACE):
            print(f"process {self._rank} is ended because process {rank} had ended", file=sys.stderr)
            os._exit(LOST)


def _listener(processes: int, key: bytes) -> Listener | None:
    try:
        return Listener(("", 0), backlog=processes, authkey=key)
    except OSError:
        return None


def _received(connection: Any) -> bytes:
    """Return the next message; an empty one where the other process has ended."""
    try:
        return connection.recv_bytes(_LONGEST)
    except (EOFError, OSError):
        return b""


def _keep_alive(connection: Connection) -> None:
    with socket.socket(fileno=os.dup(connection.fileno())) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):  # Linux has them
                own.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
