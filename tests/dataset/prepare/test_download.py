"""Downloads: mirrors in turn, checksums, and going on after a break."""

from __future__ import annotations

import hashlib
import re

import pytest

from fewseg.dataset.prepare.download import Archive, fetch
from fewseg.util.errors import DataError

NAME = "images.tar"
CONTENT = bytes(range(256)) * 11
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def download(server, tmp_path, monkeypatch):
    """Fetch from mirrors of the given kinds."""
    monkeypatch.setattr("fewseg.dataset.prepare.download.CHUNK", 250)
    server.content[NAME] = CONTENT

    def run(*kinds: str, checksum: str | None = MD5):
        urls = tuple(f"{server.mirror(kind)}/{NAME}" for kind in kinds)
        return fetch(Archive(NAME, urls, checksum), tmp_path)

    return run


def test_a_file_is_fetched_once(download, server):
    assert download("good").read_bytes() == CONTENT
    assert download("good").read_bytes() == CONTENT
    assert server.requests["good"] == 1


def test_a_broken_off_download_goes_on_by_range(download, server, tmp_path):
    assert download("breaks").read_bytes() == CONTENT  # 2,816 bytes in three answers of at most 1,000
    assert server.ranges == [None, "bytes=1000-", "bytes=2000-"]
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_what_has_arrived_is_kept_for_the_next_run(download, server, tmp_path):
    server.content[NAME] = CONTENT * 4
    longer = "md5:" + hashlib.md5(CONTENT * 4).hexdigest()
    with pytest.raises(
        DataError, match=r"broke off.*images\.tar\.part is kept, the next run goes on from there"
    ):
        download("breaks", checksum=longer)
    assert (tmp_path / f"{NAME}.part").stat().st_size == 3000
    download("good", checksum=longer)
    assert server.ranges[-1] == "bytes=3000-"


def test_a_server_without_ranges_sends_all_again(download, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:700])
    assert download("rangeless").read_bytes() == CONTENT


def test_wrong_bytes_are_removed_and_the_next_mirror_is_asked(download, server, tmp_path):
    assert download("missing", "wrong", "good").read_bytes() == CONTENT
    assert server.requests == {"missing": 1, "wrong": 1, "good": 1}
    (tmp_path / NAME).unlink()
    with pytest.raises(DataError, match=r"wrong checksum, the file was removed.*nothing is kept") as caught:
        download("wrong")
    assert not list(tmp_path.iterdir())
    assert "\n" not in str(caught.value)


def test_a_truncated_archive_is_completed_and_a_wrong_one_fetched_anew(download, server, tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT[:1500])
    assert download("good").read_bytes() == CONTENT
    assert server.ranges == ["bytes=1500-"]
    (tmp_path / NAME).write_bytes(b"x" * 1500)
    assert download("good").read_bytes() == CONTENT
    assert server.ranges[1:] == ["bytes=1500-", None]


def test_a_finished_part_is_recognised_and_a_longer_one_discarded(download, tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    assert download("good").read_bytes() == CONTENT
    (tmp_path / NAME).unlink()
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT + b"more")
    assert download("good").read_bytes() == CONTENT


def test_no_connection_and_no_folder_are_one_line(tmp_path):
    nowhere = Archive(NAME, ("http://127.0.0.1:9/images.tar",), MD5)
    with pytest.raises(DataError, match=r"no connection.*or give --mirror"):
        fetch(nowhere, tmp_path / "downloads")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot hold downloads"):
        fetch(nowhere, tmp_path / "file" / "below")


def test_a_full_disk_keeps_what_has_arrived(download, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fewseg.dataset.prepare.download.os.replace", full)
    with pytest.raises(
        DataError, match=re.escape(f"No space left on device); what has arrived is kept in {tmp_path}")
    ):
        download("good")
    assert (tmp_path / f"{NAME}.part").read_bytes() == CONTENT


def test_own_mirrors_and_checksums_come_first():
    archive = Archive(NAME, ("http://official/images.tar",), MD5)
    found = archive.found_at(["http://near/"], {NAME: "sha256:00"})
    assert found.urls == ("http://near/images.tar", "http://official/images.tar")
    assert found.checksum == "sha256:00" and archive.found_at([], {}) == archive
