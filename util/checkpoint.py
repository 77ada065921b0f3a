"""Weight files: written atomically, and read without running code from them.

A checkpoint is one safetensors file. It holds the tensors of a model and, as metadata, its method, backbone,
fold, classes and so on.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from fewseg.util.errors import CheckpointError, shortened
from fewseg.util.files import is_path, write_bytes
from fewseg.util.log import get_log

_DAMAGE = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(struct.error, zipfile.BadZipFile),
)
"""Errors that torch raises when it reads a file that is damaged or not a torch file."""

META_KEY = "fewseg"
"""The entry of the safetensors metadata that holds FewSeg's metadata as JSON."""


def save_checkpoint(path: str | Path, model_state: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Write the tensors of a model and its metadata to a file, usually ``*.safetensors``."""
    write_checkpoint(path, pack_checkpoint(model_state, meta))


def pack_checkpoint(model_state: dict[str, Tensor], meta: dict[str, Any]) -> bytes:
    """Return the content of a checkpoint; equal tensors and metadata give equal bytes.

    Args:
        model_state: name -> tensor, on any device.
        meta: plain values: arch, backbone, fold, shot, base_classes, image_size, epoch, step, score, ...
    """
    # A clone per tensor: safetensors refuses tensors that share memory.
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model_state.items()}
    return save(tensors, metadata={META_KEY: json.dumps(meta)})


def write_checkpoint(path: str | Path, content: bytes) -> None:
    """Write the content of a checkpoint to its file.

    Raises:
        CheckpointError: the file cannot be written; an earlier file of that name is unchanged.
    """
    write_bytes(path, content, CheckpointError)


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the metadata of a checkpoint written by ``save_checkpoint``.

    Raises:
        CheckpointError: missing, truncated, not written by ``save_checkpoint``, or with values that are
            NaN or infinite.
    """
    with _opened(path) as file:
        meta = _meta_of(file, path)
        # safe_open maps the file; the clones survive its replacement by a later snapshot.
        state = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
    return _checked(Path(path), state), meta


def read_meta(path: str | Path) -> dict[str, Any]:
    """Return the metadata of a checkpoint written by ``save_checkpoint``, without reading its tensors.

    Raises:
        CheckpointError: missing, truncated, or not written by ``save_checkpoint``.
    """
    with _opened(path) as file:
        return _meta_of(file, path)


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of any weight file: FewSeg's, another safetensors file, or a published ``.pth``.

    A published file may hold the tensors directly or under ``state_dict`` (``model`` in some); names are
    returned as they are.

    Raises:
        CheckpointError: missing, truncated, unsafe, without tensors, or with values that are NaN or infinite.
    """
    path = existing_file(path)
    if path.suffix == ".safetensors":
        try:
            return _checked(path, load_file(path))
        except (SafetensorError, OSError) as failure:
            raise CheckpointError(f"{path}: truncated or no safetensors file; copy it again") from failure
    content = load_torch_file(path)
    if isinstance(content, dict):
        inner = (content.get(key) for key in ("state_dict", "model"))
        content = next((part for part in inner if isinstance(part, dict)), content)
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    ):
        raise CheckpointError(
            f"{path}: holds no weights (a dict of tensors, or one under 'state_dict'); check the path"
        )
    return _checked(path, dict(content))


def file_hash(path: str | Path, size: int | None = None) -> str:
    """Return the SHA-256 of a file, or of its first ``size`` bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with existing_file(path).open("rb") as file:
        left = file.seek(0, os.SEEK_END) if size is None else size
        file.seek(0)
        while left and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def existing_file(path: str | Path) -> Path:
    """Return ``path``; raise CheckpointError if it is not a file."""
    path = Path(path)
    if not is_path(str(path)):
        raise CheckpointError(f"{shortened(str(path))} is no path; correct it")
    if path.is_dir():
        raise CheckpointError(f"{path}: is a folder; name a file in it")
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; check the path")
    return path


@contextmanager
def _opened(path: str | Path) -> Iterator[safe_open]:
    """Open a checkpoint of FewSeg, and turn errors of reading it into one line."""
    path = existing_file(path)
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as failure:
        if _is_torch_file(path):
            raise CheckpointError(
                f"{path}: a torch file, not a checkpoint of ours; convert it with tools/convert_checkpoint.py"
            ) from failure
        raise CheckpointError(
            f"{path}: truncated or no safetensors file ({first_line(failure)}); copy it again"
        ) from failure


def _meta_of(file: safe_open, path: str | Path) -> dict[str, Any]:
    try:
        meta = json.loads((file.metadata() or {}).get(META_KEY, "null"))
    except (ValueError, RecursionError):
        meta = None
    if not isinstance(meta, dict):
        raise CheckpointError(
            f"{path}: has no FewSeg metadata, so its method and backbone are unknown; "
            "write it with tools/convert_checkpoint.py"
        )
    return meta


def _checked(path: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Refuse values that are not finite in float32, and warn of tensors that are not float32."""
    counts = {name: int((~torch.isfinite(value.float())).sum()) for name, value in _floating(state).items()}
    if broken := {name: count for name, count in counts.items() if count}:
        first, count = next(iter(broken.items()))
        others = f", as have {len(broken) - 1} of its other tensors" if len(broken) > 1 else ""
        raise CheckpointError(
            f"{path}: {first} has {count} of {state[first].numel()} values that are NaN or infinite{others}; "
            "its training diverged or the file is damaged: take another checkpoint"
        )
    other = [name for name, value in _floating(state).items() if value.dtype != torch.float32]
    if other:
        dtypes = ", ".join(sorted({str(state[name].dtype).removeprefix("torch.") for name in other}))
        get_log("checkpoint").warning(
            "%s: %d of its %d tensors, first %s, are %s; they are converted to the network's float32",
            *(path, len(other), len(state), other[0], dtypes),
        )
    return state


def not_finite(state: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with NaN or infinite values; None if there is no such tensor."""
    return next((name for name, value in _floating(state).items() if not torch.isfinite(value).all()), None)


def _floating(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if value.is_floating_point()}


def load_torch_file(path: Path) -> Any:
    """Read a torch file, unpickling nothing but tensors and plain values.

    Raises:
        CheckpointError: truncated, unsafe, or no torch file.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as failure:
        if "Unsupported operand" in str(failure):  # not even a pickle
            raise CheckpointError(f"{path}: no torch file or a damaged one; copy it again") from failure
        raise CheckpointError(
            f"{path}: holds Python objects beside tensors and could run code when read, so it is refused; "
            "ask for a file that holds a state_dict only"
        ) from failure
    except _DAMAGE as failure:
        raise CheckpointError(
            f"{path}: truncated or no torch file ({first_line(failure)}); copy it again"
        ) from failure


def _is_torch_file(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(2)
    return head in (b"PK", b"\x80\x02")  # zip archive, or the older bare pickle


def first_line(failure: Exception) -> str:
    """Return the first line of an error's message, or its name where it has none."""
    return (str(failure).strip() or type(failure).__name__).splitlines()[0][:200]
