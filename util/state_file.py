"""The state of a training run as a file with a checksum, read without running code from it.

It is a torch file, which is a zip archive; the comment of the archive is the SHA-256 of everything before it.
Files without a comment, which earlier versions wrote, are read without that check.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from fewseg.util.checkpoint import existing_file, file_hash, first_line, load_torch_file
from fewseg.util.errors import CheckpointError
from fewseg.util.files import write_atomically

_ARCHIVE = b"PK\x03\x04"
_END, _END_SIZE = b"PK\x05\x06", 22
"""The last record of a zip archive and its length; its last two bytes are the length of the comment."""

_NAME = b"sha256:"
_COMMENT_SIZE = len(_NAME) + 64


def save_training_state(path: str | Path, state: dict[str, Any]) -> None:
    """Write the state of a training run: tensors, numbers, texts, lists and dicts of them.

    Raises:
        CheckpointError: the file cannot be written; an earlier file of that name is unchanged.
    """
    write_atomically(path, lambda temporary: _write(temporary, state), CheckpointError)


def load_training_state(path: str | Path) -> dict[str, Any]:
    """Read a file that ``save_training_state`` wrote.

    Raises:
        CheckpointError: missing, truncated, damaged, or holding anything but tensors and plain values.
    """
    path = existing_file(path)
    _require_undamaged(path)
    state = load_torch_file(path)
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path}: holds a {type(state).__name__}, not a training state; name a snapshot's .state.pt"
        )
    return state


def _write(path: Path, state: dict[str, Any]) -> None:
    try:
        with path.open("wb") as file:
            torch.save(state, file)
    except RuntimeError as failure:  # torch's, of a write that failed
        reason = failure.__context__
        if isinstance(reason, OSError):
            raise OSError(reason.errno, reason.strerror) from failure
        raise OSError(first_line(failure)) from failure
    with path.open("rb+") as file:
        file.seek(-2, os.SEEK_END)
        file.write(_COMMENT_SIZE.to_bytes(2, "little"))
    checksum = file_hash(path).encode()
    with path.open("ab") as file:
        file.write(_NAME + checksum)


def _require_undamaged(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(_ARCHIVE)) != _ARCHIVE:
            return  # no archive at all, which reading it reports better
        file.seek(max(0, size - _END_SIZE - _COMMENT_SIZE))
        tail = file.read()
    name, written = tail[_END_SIZE : _END_SIZE + len(_NAME)], tail[_END_SIZE + len(_NAME) :]
    if tail.startswith(_END) and name == _NAME:
        if file_hash(path, size - _COMMENT_SIZE).encode() == written:
            return
    elif tail[-_END_SIZE:].startswith(_END) and tail.endswith(bytes(2)):
        return
    raise CheckpointError(
        f"{path}: truncated or damaged, its checksum does not fit; copy it again, or start from weights: "
        "--opts weight PATH"
    )
