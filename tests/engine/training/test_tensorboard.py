"""The curves of a run: what is written can be read, and a full disk ends them without ending the run."""

from __future__ import annotations

import numpy as np

from fewseg.engine.training.tensorboard import TensorBoardWriter
from tests.engine import event_files


def events(folder):
    (file,) = folder.iterdir()
    return event_files.events(file)


def test_values_and_pictures_can_be_read(tmp_path):
    board = TensorBoardWriter(tmp_path / "board")
    board.scalars("loss", {"main": 0.5, "total": 0.75}, 10)
    board.picture("validation/car", np.zeros((4, 6, 3), np.uint8), 20)
    board.close()
    first, *rest = events(tmp_path / "board")
    assert first.file_version == "brain.Event:2"
    values = [(event.step, event.summary.value[0]) for event in rest]
    assert [(step, value.tag) for step, value in values] == [
        *((10, "loss/main"), (10, "loss/total"), (20, "validation/car"))
    ]
    assert values[1][1].simple_value == 0.75
    assert (values[2][1].image.height, values[2][1].image.width) == (4, 6)
    assert all(event.wall_time > 0 for event in (first, *rest))


def test_a_run_that_goes_on_hides_later_values(tmp_path):
    board = TensorBoardWriter(tmp_path / "board", first_step=31)
    board.scalars("loss", {"main": 0.5}, 31)
    board.close()
    second = events(tmp_path / "board")[1]
    assert (second.step, second.session_log.status) == (31, second.session_log.START)


def test_flushed_values_are_in_the_file_however_the_process_ends(tmp_path):
    board = TensorBoardWriter(tmp_path / "board")
    board.flush()
    for step in (1, 2):
        board.scalars("loss", {"main": 0.5}, step)
    assert ("loss/main", 2) not in event_files.curves(tmp_path / "board")
    board.flush()
    assert ("loss/main", 2) in event_files.curves(tmp_path / "board")


def test_without_a_value_there_is_no_file(tmp_path):
    TensorBoardWriter(tmp_path / "board").close()
    assert not (tmp_path / "board").exists()


def test_a_full_disk_ends_the_curves_with_one_warning(tmp_path, small_files, caplog):
    board = TensorBoardWriter(tmp_path / "board")
    with small_files(2000):
        for step in range(1000):
            board.scalars("loss", {"main": 0.5}, step)
        board.close()
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'board'}: the curves end here (File too large); the run goes on"
    ]


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    board = TensorBoardWriter(tmp_path / "file" / "board")
    board.scalars("loss", {"main": 0.5}, 1)
    board.close()
    assert "the curves end here (Not a directory)" in caplog.text
