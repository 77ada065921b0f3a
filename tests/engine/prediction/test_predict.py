"""Segmenting a user's own images: masks of all kinds, names of the results, and files that are bad."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import predict
from fewseg.dataset.classes.shared_names import known_names
from fewseg.dataset.reading.mask import read_mask
from fewseg.dataset.reading.transform import Resize
from fewseg.engine.prediction.predict import Example, Segmenter, check_outputs, output_names, read_example
from fewseg.engine.setup.build import build_few_shot, build_network
from fewseg.engine.setup.data import fold_of
from fewseg.engine.setup.weights import describe
from fewseg.engine.setup.words import class_id_of, names_with
from fewseg.util.checkpoint import save_checkpoint
from fewseg.util.errors import ConfigError, DataError, UserError

BAM = ["arch", "bam", "Method.options.channels", "16"]


@pytest.fixture
def example(tmp_path):
    """Return a function that writes a mask beside a photograph and reads both."""
    Image.fromarray(np.zeros((100, 120, 3), np.uint8)).save(tmp_path / "photo.png")

    def read(values: np.ndarray, class_id: int | None = None, name: str = "mask.png") -> np.ndarray:
        Image.fromarray(values.astype(np.uint8)).save(tmp_path / name)
        return read_example(tmp_path / "photo.png", tmp_path / name, class_id).mask

    return read


def painted(*areas: tuple[int, slice]) -> np.ndarray:
    values = np.zeros((100, 120), np.uint8)
    for value, columns in areas:
        values[20:80, columns] = value
    return values


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "fewseg")
    return caplog


def test_a_mask_with_soft_edges_is_cut_and_the_log_says_so(example, said):
    values = cv2.GaussianBlur(painted((255, slice(30, 90))), (0, 0), 2)
    np.testing.assert_array_equal(example(values), values >= 128)
    assert "mask.png: taken for a binary mask with soft edges" in said.text and "128" in said.text
    assert "29.9% object, 0.0% void" in said.text


def test_a_plain_mask_needs_no_word(example, said):
    for values in (painted((255, slice(30, 90))), painted((1, slice(30, 90)), (255, slice(90, 95)))):
        mask = example(values)
        assert mask[50, 50] == 1 and mask[0, 0] == 0
        assert mask[50, 92] == (255 if values.max() == 255 and values[50, 50] == 1 else 0)
    assert not said.text


def test_a_mask_of_several_classes_wants_a_choice(example):
    values = painted((3, slice(0, 40)), (15, slice(40, 80)), (255, slice(80, 90)))
    with pytest.raises(DataError, match=r"mask\.png: shows 2 classes \(3, 15\).*--class ID"):
        example(values)
    with pytest.raises(DataError, match=r"mask\.png: does not show class 4, only 3, 15"):
        example(values, 4)
    mask = example(values, 15)
    np.testing.assert_array_equal(mask == 1, values == 15)
    np.testing.assert_array_equal(mask == 255, values == 255)


def test_black_and_white_needs_no_choice(example):
    values = painted((255, slice(30, 90)))
    np.testing.assert_array_equal(example(values, 15), values // 255)
    with pytest.raises(DataError, match="does not show class 15, only 1"):
        example(values // 255, 15)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.full((100, 120), 255), "nearly all of the image"),
        (painted((9, slice(30, 31))) * (np.arange(100) < 25)[:, None], "only 5 of 12000 pixels"),
        (painted((9, slice(0, 40)), (255, slice(40, 120))), "more of it is void"),
    ],
)
def test_a_doubtful_mask_is_told_in_words_and_shares(example, said, values, words):
    example(values)
    assert words in said.text and "% object" in said.text and "% void" in said.text
    assert [record.levelname for record in said.records] == ["WARNING"]


def test_masks_that_cannot_be_used_are_refused(example):
    with pytest.raises(DataError, match=r"mask\.png: marks no object"):
        example(painted())
    with pytest.raises(DataError, match=r"mask\.jpg: a JPEG cannot be a mask"):
        example(painted((255, slice(30, 90))), name="mask.jpg")


def test_results_never_share_a_name():
    def names(*files: str) -> list[str]:
        return output_names([Path("photos") / file for file in files])

    assert names("a.jpg", "b.png") == ["a", "b"]
    assert names("a.jpg", "a.png", "b.jpg") == ["a.jpg", "a.png", "b"]
    assert names("a.jpg", "A.png") == ["a.jpg", "A.png"]
    assert names("a.jpg", "a.png", "a.jpg.png") == ["a.jpg", "a.png", "a.jpg.png"]


def test_no_input_is_overwritten(tmp_path):
    with pytest.raises(UserError, match=r"cat_mask\.png: is read, and would be overwritten.*--out"):
        check_outputs([tmp_path / "x" / ".." / "cat_mask.png"], [tmp_path / "cat_mask.png"])
    check_outputs([tmp_path / "cat_mask.png"], [tmp_path / "cat.png"])


@pytest.fixture
def photos(configure, shapes, tmp_path):
    """Make a folder of photographs, an example and a checkpoint; return the arguments of the command line."""
    config = configure("bam")
    split = fold_of(config).classes
    state = build_network(config, split).state_dict()
    save_checkpoint(tmp_path / "best.safetensors", state, describe(config, split))
    first, second, third = sorted((shapes / "JPEGImages").iterdir())[:3]
    (tmp_path / "photos").mkdir()
    for name, source in {"a.png": first, "a.bmp": second, "z.bmp": third}.items():
        cv2.imwrite(str(tmp_path / "photos" / name), cv2.imread(str(source)))
    labels = read_mask(shapes / "SegmentationClass" / f"{first.stem}.png")
    Image.fromarray((labels > 0).astype(np.uint8) * 255).save(tmp_path / "object.png")
    yield [
        *("--config", str(tmp_path / "tiny.yaml"), "--weight", str(tmp_path / "best.safetensors")),
        *("--support", str(first), str(tmp_path / "object.png"), "--query", str(tmp_path / "photos")),
        *("--out", str(tmp_path / "found"), "--opts", *BAM),
    ]


def test_one_corrupt_photograph_is_left_out_and_the_others_go_on(photos, tmp_path, capsys):
    (tmp_path / "photos" / "corrupt.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photograph")
    with pytest.raises(SystemExit) as stop:
        predict.main(photos)
    assert stop.value.code == predict.INCOMPLETE == 1
    said = capsys.readouterr()
    assert re.search(r"\.safetensors: trained on shapes, fold 0$", said.out, re.MULTILINE)
    masks = (read_mask(path) for path in (tmp_path / "found").glob("*_mask.png"))
    assert f"3 images segmented from 1 examples, the class found in {sum(m.any() for m in masks)}" in said.out
    wrong = said.err.splitlines()
    assert len([line for line in wrong if "corrupt.jpg" in line]) == 1
    assert any("1 of 4 images could not be read" in line for line in wrong)
    found = {path.name for path in (tmp_path / "found").iterdir()}
    results = {f"{name}_{kind}.png" for name in ("a.bmp", "a.png", "z") for kind in ("mask", "overlay")}
    assert found == {*results, "panel.png"}


def test_results_in_the_folder_of_the_photographs_leave_them_alone(photos, tmp_path):
    (tmp_path / "photos" / "z_mask.png").write_bytes((tmp_path / "photos" / "a.png").read_bytes())
    photos[photos.index("--out") + 1] = str(tmp_path / "photos")
    with pytest.raises(UserError, match=r"z_mask\.png: is read, and would be overwritten"):
        predict.main(photos)
    assert not (tmp_path / "photos" / "panel.png").exists()


def test_a_base_learners_config_is_refused_before_anything_is_written(photos, tmp_path):
    with pytest.raises(ConfigError, match=r"pspnet is a base learner.*config of a few-shot method"):
        predict.main([*photos[: photos.index("--opts")], "--opts", "arch", "pspnet"])
    assert not (tmp_path / "found").exists()


def test_a_one_shot_checkpoint_takes_two_examples_with_a_warning(photos, tmp_path):
    first = photos.index("--support") + 1
    examples = photos[first : first + 2]
    with pytest.warns(UserWarning, match=r"another number of supports.*shot_weights uniform"):
        predict.main([*photos[:first], *examples, *photos[first:]])
    assert (tmp_path / "found" / "z_mask.png").is_file()


def test_a_method_that_reads_names_is_told_the_class(configure, tmp_path):
    config = configure("mianet", **{"Method.options.embeddings": "hashed"})
    split = fold_of(config).classes
    network = build_network(config, split)
    image = np.full((80, 80, 3), 128, np.uint8)
    example = Example(image, np.eye(80, dtype=np.uint8))
    prototypes = []
    for name, position in ((split.names[3], 3), ("zebra", len(split.names))):
        names = names_with(config, split.names, name)
        model = build_few_shot(config, split, names)
        class_id = class_id_of(config, model, names, name)
        assert class_id == position and names[class_id] == name
        model.load_state_dict(network.state_dict())
        segmenter = Segmenter(model, [example], Resize(65, "stretch"), class_id=class_id)
        query = model.encode_query(torch.zeros(1, 3, 65, 65))
        supports = {key: value[:, 0] for key, value in segmenter._supports.items()}
        prototypes.append(model.meta.match(query, supports)["prototype"])
    assert not torch.allclose(*prototypes)


@pytest.fixture
def name_class(configure):
    """Return a function that finds the id of a named class in a model of these options."""

    def find(method: str, name: str | None, **options: object) -> int:
        config = configure(method, **{f"Method.options.{key}": value for key, value in options.items()})
        split = fold_of(config).classes
        names = names_with(config, split.names, name)
        return class_id_of(config, build_few_shot(config, split, names), names, name)

    return find


@pytest.mark.parametrize("words", [["hashed"], ["table"], ["table", "hashed"]])
def test_names_of_classes_are_asked_for_where_they_are_read(name_class, shapes, tmp_path, words):
    classes = known_names("shapes")
    np.save(tmp_path / "table.npy", np.eye(len(classes), 7, dtype=np.float32))
    sources = [str(tmp_path / "table.npy") if source == "table" else source for source in words]
    given = {"embeddings": sources if len(sources) > 1 else sources[0]}
    assert name_class("mianet", classes[3], **given) == 3
    with pytest.raises(UserError, match=r"mianet reads the name of the class.*--class-name cat"):
        name_class("mianet", None, **given)
    if words == ["hashed"]:
        assert name_class("mianet", "zebra", **given) == len(classes)
    else:
        with pytest.raises(UserError, match=r"zebra: .*table\.npy.* has word vectors of .* only; give the"):
            name_class("mianet", "zebra", **given)
    with pytest.raises(UserError, match=r"--class-name background: .* has word vectors of the data set"):
        name_class("mianet", "background", **given)


def test_names_of_classes_are_refused_where_they_are_not_read(name_class):
    for method, options in (("bam", {}), ("mianet", {"general_information": False, "embeddings": "null"})):
        assert name_class(method, None, **options) == 0
        with pytest.raises(UserError, match=f"--class-name cat: {method} does not read names of classes"):
            name_class(method, "cat", **options)


def test_an_unknown_method_is_one_line(photos):
    with pytest.raises(ConfigError, match="there is no method 'bamm'"):
        predict.main([*photos[: photos.index("--opts")], "--opts", "arch", "bamm"])
