"""Read TensorBoard's event files, and the curves that it shows of several of them."""

from __future__ import annotations

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog

Curves = dict[tuple[str, int], float]
"""Name and step of a point -> its value."""


def events(file: Path) -> list[Event]:
    """Read the complete records of a file: length, its checksum, content, its checksum."""
    content, found = file.read_bytes(), []
    while len(content) >= 12:
        (length,) = struct.unpack("<Q", content[:8])
        if len(content) < 16 + length:  # the process was killed as it wrote
            break
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def curves(folder: Path) -> Curves:
    """Return the points that TensorBoard shows of a run: a resumed run hides what lies ahead of its start."""
    points: Curves = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns):
        for event in events(file):
            if event.session_log.status == SessionLog.START:
                points = {point: value for point, value in points.items() if point[1] < event.step}
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    points[value.tag, event.step] = value.simple_value
    return points
