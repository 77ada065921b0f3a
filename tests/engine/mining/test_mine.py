"""Mining latent classes: a pure function of checkpoint and seed, and labels that training reads."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from fewseg.dataset.loading.mined import MinedImages, read_facts
from fewseg.dataset.loading.store import ImageStore
from fewseg.dataset.reading.mask import read_mask
from fewseg.engine.mining.clusters import cluster
from fewseg.engine.mining.mine import Miner, MiningSettings, write_mined
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import fold_of, training_data
from fewseg.engine.setup.weights import describe
from fewseg.util.checkpoint import save_checkpoint
from fewseg.util.config import load_config
from fewseg.util.errors import DataError
from tools.mine_latent_classes import main

OPTS = ["arch", "mlc", "Data.protocol_options.min_area", "60", "train_list"]


@pytest.fixture
def few(shapes, tmp_path):
    """A list of a few training images."""
    names = (shapes / "ImageSets/Segmentation/train.txt").read_text().split()[:40]
    path = tmp_path / "few.txt"
    path.write_text("\n".join(names))
    return path


@pytest.fixture
def config(config_file, few):
    return load_config(config_file, [*OPTS, str(few)])


@pytest.fixture
def miner(config):
    def build(**settings):
        fold = fold_of(config)
        torch.manual_seed(0)
        model = build_network(config, fold.classes)
        return Miner(model, fold, 1, MiningSettings(**{"clusters": 6, **settings}))

    return build


def test_clusters_are_found_and_repeatable():
    torch.manual_seed(0)
    middles = 10 * torch.eye(4)
    vectors = (middles.repeat_interleave(20, 0) + 0.1 * torch.randn(80, 4)).double()
    centres = cluster(vectors, 4, seed=3)
    assert torch.equal(centres, cluster(vectors, 4, seed=3))
    nearest = torch.cdist(middles.double(), centres).min(1)
    assert sorted(nearest.indices.tolist()) == [0, 1, 2, 3] and nearest.values.max() < 0.2
    same = cluster(torch.ones(5, 2), 3, seed=0)
    assert torch.equal(same, torch.ones(3, 2).double())


def test_labels_are_a_pure_function_of_network_and_seed(miner):
    first, second = miner(), miner()
    centres = first.centres()
    assert centres.shape == (7, centres.shape[1]) and torch.equal(centres, second.centres())
    labels = dict(first.labels(centres))
    assert all(np.array_equal(labels[name], label) for name, label in second.labels(centres))
    assert {*np.unique(np.concatenate([label.ravel() for label in labels.values()]))} <= set(range(7))
    for name, label in labels.items():
        assert label.shape == first.store.named(name)[1].shape
    assert not torch.equal(miner(seed=1).centres(), centres)


def test_switches_of_the_labels(miner):
    plain, dropped, kept = miner(), miner(drop=0.25), miner(protect_base=True)
    centres = plain.centres()
    name, label = next(plain.labels(centres))
    void = next(dropped.labels(centres))[1] == 255
    assert 0.2 < void.mean() < 0.3
    assert np.array_equal(next(dropped.labels(centres))[1][~void], label[~void])
    mask, protected = plain.store.named(name)[1], next(kept.labels(centres))[1]
    for rank, class_id in enumerate(plain.split.base, 1):
        assert (protected[mask == class_id] == 6 + rank).all()
    rest = ~np.isin(mask, plain.split.base)
    assert np.array_equal(protected[rest], label[rest])


def test_too_many_clusters_are_one_line(miner):
    with pytest.raises(DataError, match="clusters 254: at most 253 labels are left"):
        miner(clusters=254)
    with pytest.raises(
        DataError, match=r"clusters 250: the training images give \d+ prototypes; ask for at most"
    ):
        miner(clusters=250).centres()


def test_training_reads_what_was_mined(miner, config, config_file, few, tmp_path):
    folder = tmp_path / "split0"
    count = write_mined(miner(), folder, {"data_set": "shapes", "fold": 0})
    assert count == len(json.loads((folder / "mined.json").read_text())["images"])
    mined = ["auxiliary", "2", "mined_labels", str(tmp_path / "split{fold}")]
    training = load_config(config_file, ["arch", "mlc-reconstruction", *OPTS[2:], str(few), *mined])
    fold = fold_of(training)
    episode = training_data(training, fold, 0)[0, 0].episode
    assert episode.auxiliary_label.shape == (1, 1, 2, 65, 65)
    model = build_network(training, fold.classes).train()
    losses = model.losses(model(episode), episode)
    assert set(losses) == {"main", "mining"} and all(loss.isfinite() for loss in losses.values())


def test_labels_of_other_settings_are_kept_unless_told_otherwise(miner, tmp_path, monkeypatch):
    facts = {"data_set": "shapes", "fold": 0, "checkpoint_hash": "ab" * 32}
    count = write_mined(miner(), tmp_path, facts)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert write_mined(miner(), tmp_path, facts) == count
    with pytest.raises(
        DataError, match=r"holds labels of clusters 6; choose another by --out, or say --over"
    ):
        write_mined(miner(clusters=5), tmp_path, facts)
    with pytest.raises(DataError, match="holds labels of other weights; "):
        write_mined(miner(), tmp_path, {**facts, "checkpoint_hash": "cd" * 32})
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fewseg.engine.mining.mine.write_label", killed)
        write_mined(miner(clusters=5), tmp_path, facts, overwrite=True)
    assert read_facts(tmp_path) is None  # so that nobody takes the labels of both for one
    write_mined(miner(clusters=5), tmp_path, facts)
    assert read_facts(tmp_path)["clusters"] == 5


def test_tool_mines_a_fold(config, config_file, few, tmp_path):
    fold = fold_of(config)
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, build_network(config, fold.classes).state_dict(), describe(config, fold.classes))
    arguments = ["--config", str(config_file), "--weight", str(path), "--clusters", "5"]
    extra = tmp_path / "extra"
    extra.mkdir()
    for name in ("photo.png", "twin.png", "twin.bmp"):
        cv2.imwrite(str(extra / name), np.full((50, 70, 3), 90, np.uint8))
    folders = ["--out", str(tmp_path / "fold{fold}"), "--extra", str(extra)]
    main([*arguments, *folders, "--opts", *OPTS, str(few)])
    facts = json.loads((tmp_path / "fold0/mined.json").read_text())
    assert (facts["fold"], facts["clusters"], facts["arch"]) == (0, 5, "mlc") and len(
        facts["checkpoint_hash"]
    ) == 64
    assert read_mask(tmp_path / "fold0/labels" / f"{facts['images'][0]}.png").max() <= 5
    assert np.load(tmp_path / "fold0/centres.npy").shape[0] == 6
    assert facts["images"][-3:] == ["extra/photo", "extra/twin.bmp", "extra/twin.png"]
    source = MinedImages.open(tmp_path / "fold0", 1, {"fold": 0}, fold.train_images)
    image, label = source.read(ImageStore(fold.train_images), "extra/photo")
    assert image.shape[:2] == label.shape == (50, 70)


def test_names_of_a_list_never_lead_labels_out_of_the_folder(config, config_file, few, tmp_path):
    path = tmp_path / "best.safetensors"
    split = fold_of(config).classes
    save_checkpoint(path, build_network(config, split).state_dict(), describe(config, split))
    names = few.read_text().split()
    few.write_text("\n".join([*names, f"../JPEGImages/{names[0]}"]))
    given = ["--config", str(config_file), "--weight", str(path), "--clusters", "5"]
    with pytest.raises(DataError, match=r"few\.txt:41: .* leads out of its folder"):
        main([*given, "--out", str(tmp_path / "out"), "--opts", *OPTS, str(few)])
    assert not list((tmp_path / "out").rglob("*.png")) and not (tmp_path / "JPEGImages").exists()
