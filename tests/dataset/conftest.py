"""The eight recorded images, shared by the tests of this room."""

from __future__ import annotations

import pytest

from dataset.lists import read_image_list


@pytest.fixture
def parity_set(shared, tmp_path):
    """Folder of the recorded cases, its image list and label areas."""
    folder = shared / "parity" / "data"
    for name in ("images", "labels"):
        (tmp_path / name).symlink_to(folder / name)
    source = read_image_list(tmp_path, folder / "list.txt")
    return folder, source, source.index(progress=False)
