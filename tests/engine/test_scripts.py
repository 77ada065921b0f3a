"""The scripts from the command line: what they write, and one line for what a user can mend."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from fewseg.dataset.reading.mask import read_image, read_mask
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import fold_of
from fewseg.engine.setup.weights import describe
from fewseg.util.checkpoint import save_checkpoint

ROOT = Path(__file__).resolve().parents[2]
BAM = ["arch", "bam", "Method.options.channels", "16"]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, timeout=300)
    assert not set("\r\x1b") & set(finished.stdout + finished.stderr), "control characters in a file"
    return finished


def assert_refused(finished: subprocess.CompletedProcess[str], *said: str) -> None:
    assert finished.returncode == 2, finished.stderr
    message = [line for line in finished.stderr.splitlines() if line.startswith("error: ")]
    assert len(message) == 1 and "Traceback" not in finished.stderr
    assert all(words in message[0] for words in said), message[0]


@pytest.fixture
def trained(configure, tmp_path):
    """Write the checkpoint of a few-shot model, as if it had been trained; return its path."""
    config = configure("bam")
    split = fold_of(config).classes
    path = tmp_path / "run" / "best.safetensors"
    save_checkpoint(path, build_network(config, split).state_dict(), describe(config, split))
    return path


def test_test_writes_results_tables_pictures_and_a_page(config_file, trained, tmp_path):
    count = ("--episodes", 6, "--seeds", 3, 4)
    finished = run("test.py", "--config", config_file, *count, "--untrained", "--opts", *BAM)
    assert finished.returncode == 0, finished.stderr
    baselines = ("support mask copied", "every object", "untrained")
    assert all(name in finished.stdout for name in baselines)
    folder = tmp_path / "run" / "results"
    (file,) = folder.glob("bam_resnet18_shapes_bam_fold0_1shot_2x6_seeds3-4_*.json")
    result = json.loads(file.read_text())
    assert [seed["seed"] for seed in result["seeds"]] == [3, 4]
    assert result["episodes"] == 6 and len(result["checkpoint_hash"]) == 64
    assert {"mIoU", "FB-IoU", "pIoU", "mIoU_meta", "mIoU_base"} <= result["mean"].keys()
    (file,) = (folder / "baselines").glob("untrained-bam_resnet18_shapes_bam_fold0_1shot_2x6_*.json")
    untrained = json.loads(file.read_text())
    assert untrained["episode_hash"] == result["episode_hash"]
    assert untrained["method"] == "untrained bam" and untrained["checkpoint"] is None
    (tables,) = (path for path in (folder / "tables").iterdir() if path.is_dir())
    assert {path.suffix for path in tables.iterdir()} == {".md", ".csv", ".tex", ".txt"}
    page = (folder / "report.html").read_text()
    pictures = sorted((folder / "pictures").rglob("*.png"))
    assert len(pictures) == 2
    assert all(picture.relative_to(folder).as_posix() in page for picture in pictures)


def test_predict_writes_masks_of_the_queries_sizes(config_file, trained, shapes, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    names = sorted((shapes / "JPEGImages").iterdir())[:3]
    support, mask = names[0], shapes / "SegmentationClass" / f"{names[0].stem}.png"
    cv2.imwrite(str(photos / "wide.png"), cv2.imread(str(names[1]))[:60])
    cv2.imwrite(str(photos / "tall.jpg"), cv2.imread(str(names[2]))[:, :50])
    cv2.imwrite(str(tmp_path / "object.png"), (read_mask(mask) > 0).astype("uint8") * 255)
    out = tmp_path / "found"
    finished = run(
        *("predict.py", "--config", config_file, "--weight", trained, "--out", out, "--query", photos),
        *("--support", support, tmp_path / "object.png", "--opts", *BAM),
    )
    assert finished.returncode == 0, finished.stderr
    for name in ("wide.png", "tall.jpg"):
        image = read_image(photos / name)
        found = read_mask(out / f"{Path(name).stem}_mask.png")
        assert found.shape == image.shape[:2] and set(found.flat) <= {0, 255}
        assert read_image(out / f"{Path(name).stem}_overlay.png").shape == image.shape
    assert (out / "panel.png").is_file()


def test_user_errors_are_one_line(config_file, trained, tmp_path):
    predict = ("predict.py", "--config", config_file, "--out", tmp_path / "out", "--query", tmp_path)
    assert_refused(run(*predict, "--support", "a.jpg", "--opts", *BAM), "a.jpg has no mask")
    test = ("test.py", "--config", config_file)
    assert_refused(run(*test, "--weight", "missing.safetensors", "--opts", *BAM), "no such file")
    assert_refused(run(*test, "--folds", 7, "--opts", *BAM), "split", "folds 0 to 4", "7")
    assert_refused(
        run(*test, "--weight", trained, "--opts", "arch", "bam", "Method.options.channels", 8), "misshaped"
    )
    (tmp_path / "file").write_text("")
    assert_refused(run(*test, "--out", tmp_path / "file" / "below", "--opts", *BAM), "cannot be made")


def test_checkpoint_of_another_fold_is_refused(config_file, trained):
    finished = run("test.py", "--config", config_file, "--weight", trained, "--opts", *BAM, "split", 2)
    assert_refused(finished, "is of fold 0, but fold 2 is wanted")


def test_error_in_a_worker_is_one_line(config_file, shapes, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    for part in shapes.iterdir():
        if part.name != "JPEGImages":
            (root / part.name).symlink_to(part)
    (root / "JPEGImages").mkdir()
    for image in (shapes / "JPEGImages").iterdir():
        (root / "JPEGImages" / image.name).write_bytes(image.read_bytes()[:200])
    finished = run(
        *("train.py", "--config", config_file),
        *("--opts", "arch", "pspnet", "data_root", root, "workers", 1, "save_path", tmp_path / "broken"),
    )
    assert_refused(finished, "the image is corrupt or truncated")


def test_a_full_disk_is_one_line_and_leaves_no_half_files(config_file, tmp_path, small_files):
    with small_files(20_000):
        finished = run(
            *("train.py", "--config", config_file, "--opts", "arch", "pspnet", "epochs", 1, "batch_size", 40),
            *("evaluate", "False", "print_freq", 1),
        )
    assert_refused(finished, "cannot be written (File too large); free space")
    assert not list((tmp_path / "run").glob(".*.part"))


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def to_every_process(pid):
    """Signal as a cluster's scheduler does, in the worst order: workers first."""
    workers = children(pid)
    assert workers
    for worker in workers:
        os.kill(worker, signal.SIGTERM)
    time.sleep(1)
    os.kill(pid, signal.SIGTERM)


@pytest.mark.parametrize("send", [lambda group: os.killpg(group, signal.SIGTERM), to_every_process])
def test_signal_to_the_whole_run_leaves_a_resumable_snapshot(config_file, tmp_path, send):
    changes = ["arch", "pspnet", "workers", "1", "epochs", "500", "evaluate", "False"]
    command = [sys.executable, "-u", "train.py", "--config", str(config_file), "--opts", *changes]
    started = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    for line in started.stdout:
        if line.startswith("epoch 1/500"):
            break
    send(started.pid)
    _, said = started.communicate(timeout=300)
    assert started.returncode == 130
    assert "stopped by SIGTERM in epoch" in said and "--opts resume" in said and "Traceback" not in said
    assert (tmp_path / "run" / "last.state.pt").is_file()
