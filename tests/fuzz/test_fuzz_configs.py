"""Config files and ``--opts`` that were damaged, or say what nobody means."""

from __future__ import annotations

import dataclasses
import inspect
import json
import random
import re
import typing
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch

from fewseg.dataset.classes.split import class_split
from fewseg.engine.setup.build import build_adapter, build_network
from fewseg.engine.setup.protocols import test_protocol
from fewseg.model.backbone.resnet import ResNet
from fewseg.model.backbone.vgg import VGG16
from fewseg.model.create import METHODS
from fewseg.model.fewshot import FewShotModel
from fewseg.util.config import Config, load_config
from fewseg.util.config.schema import FREE_MAPPINGS, SECTIONS, keys_marked
from fewseg.util.config.types import METHOD_OPTION
from tests.fuzz.damage import ODD_TEXTS, damaged, damaged_text
from tests.fuzz.odd_yaml import BOMB, ODD_VALUES, RANGES, check_value
from tests.fuzz.outcome import accepted, cases, generator
from tests.model.tester import random_episode

ROOT = Path(__file__).resolve().parents[2] / "config"
FILES = sorted(path for path in ROOT.rglob("*.yaml") if not {"_base_", "studies"} & {*path.parts})
KEYS = [f"{section}.{key}" for section, model in SECTIONS.items() for key in model.model_fields]
SIDE = 65
SMALL = ("train_h", SIDE, "train_w", SIDE, "val_size", SIDE, "Method.backbone_options.width", 8)
SPLIT = class_split("shapes", 0)
FREE = tuple(path.split(".")[1] for path in (*FREE_MAPPINGS, *keys_marked(METHOD_OPTION)))
"""Keys whose values the method, the backbone, the adaptation or the protocol checks."""


def small(name: str) -> tuple[Path, list[str]]:
    """Return a shipped config of the drawn data set and the changes that make its network tiny."""
    return ROOT / f"shapes/{name}_resnet18.yaml", [str(part) for part in SMALL]


def check(config: Config, key: str = "", written: str | None = None) -> None:
    """Raise AssertionError unless all values mean something and the config survives being written."""
    for section, values in config:
        for name, value in values:
            if name not in FREE:
                check_value(name, value, written if f"{section}.{name}" == key else None)
            elif len(list(islice(leaves(value), 10_000))) == 10_000:
                raise AssertionError(f"{name} has ten thousand values")
    assert config.Train.start_epoch < config.Train.epochs, "the training is over before it begins"


def leaves(value: typing.Any) -> Iterator[typing.Any]:
    """Yield the single values of lists and mappings, one inside another."""
    if isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from leaves(part)
    else:
        yield value


def check_dump(config: Config, folder: Path) -> None:
    again = folder / "again.yaml"
    again.write_text(config.dump_yaml())
    assert load_config(again).as_dict() == config.as_dict(), "is read back otherwise than it was written"


def check_network(config: Config) -> None:
    """Build the network and let it segment an episode."""
    model = build_network(config, SPLIT)
    if not isinstance(model, FewShotModel):
        logits = model.eval()(torch.zeros(1, 3, SIDE, SIDE))
    else:
        build_adapter(config, model)
        logits = model.eval()(random_episode(SIDE, batch=1)).logits
    assert logits.isfinite().all(), "the logits are not finite"


class TestKeys:
    """One key of a shipped config gets an odd value."""

    @pytest.mark.parametrize("number", cases(140))
    def test_on_the_command_line(self, number: int, tmp_path: Path) -> None:
        rng = generator("key", number)
        key, written = KEYS[number % len(KEYS)], rng.choice(ODD_VALUES)
        path, opts = small(rng.choice(("bam", "pfenet", "hsnet", "pspnet")))
        name = key.split(".")[1]
        builds = key.startswith("Method.") and name != "backbone_options"
        print(key, written[:200])

        def read() -> None:
            config = load_config(path, [*(opts if builds else ()), key, written])
            check(config, key, written)
            check_dump(config, tmp_path)
            protocol = test_protocol(config)
            for field in dataclasses.fields(protocol):
                check_value(field.name, getattr(protocol, field.name))
            if builds:
                check_network(config)

        accepted(read, (key, name, "protocol"))

    @pytest.mark.parametrize("number", cases(60))
    def test_in_a_file(self, number: int, tmp_path: Path) -> None:
        rng = generator("file", number)
        lines = load_config(rng.choice(FILES)).dump_yaml().splitlines()
        place = rng.choice([i for i, line in enumerate(lines) if line.startswith("  ") and ": " in line])
        key, written = lines[place].split(":")[0].strip(), rng.choice(ODD_VALUES)
        lines[place] = f"  {key}: {written}"
        path = tmp_path / "odd.yaml"
        path.write_text("\n".join(lines))
        print(lines[place][:200])

        def read() -> None:
            config = load_config(path)
            check(config)
            check_dump(config, tmp_path)

        accepted(read, ("odd.yaml", "protocol"))


class TestOptions:
    """An option of a method, of a backbone or of a protocol gets an odd value."""

    @pytest.mark.parametrize("number", cases(110))
    def test_of_a_method(self, number: int, tmp_path: Path) -> None:
        rng = generator("option", number)
        name = sorted(METHODS)[number % len(METHODS)]
        fields = [field.name for field in dataclasses.fields(METHODS[name].Options)]
        option, written = rng.choice(fields), rng.choice(ODD_VALUES)
        path, opts = small(name)
        print(name, option, written[:200])

        def read() -> None:
            config = load_config(path, [*opts, f"Method.options.{option}", written])
            check_network(config)
            check_value(option, config.Method.options.get(option), written)
            check_dump(config, tmp_path)

        accepted(read, (option,))

    @pytest.mark.parametrize("number", cases(40))
    def test_of_a_backbone(self, number: int, tmp_path: Path) -> None:
        rng = generator("backbone", number)
        name, network = rng.choice((("resnet50", ResNet), ("resnet18", ResNet), ("vgg16", VGG16)))
        known = [p for p in inspect.signature(network).parameters if p not in ("depth", "self")]
        option, written = rng.choice([*known, "depth", "widht"]), rng.choice(ODD_VALUES)
        path, opts = ROOT / f"pascal/bam_{name.replace('resnet18', 'resnet50')}.yaml", small("bam")[1]
        if option == "width":
            opts = opts[:-2]
        print(name, option, written[:200])

        def read() -> None:
            changes = [*opts, "backbone", name, f"Method.backbone_options.{option}", written]
            config = load_config(path, [*changes, "Method.options.channels", "16"])
            check_network(config)
            check_value(option, config.Method.backbone_options.get(option), written)
            assert option in known, f"{option} is no option of {name}"

        accepted(read, (option,))


class TestText:
    """The text of a file is damaged."""

    @pytest.mark.parametrize("number", cases(60))
    def test_lines_and_bytes(self, number: int, tmp_path: Path) -> None:
        rng = generator("text", number)
        text = load_config(rng.choice(FILES)).dump_yaml()
        path = tmp_path / "damaged.yaml"
        if number % 2:
            path.write_bytes(damaged(text.encode(), rng))
        else:
            path.write_text(damaged_text(text, rng), errors="surrogatepass", newline="")

        def read() -> None:
            check(load_config(path))

        accepted(read, ("damaged.yaml",))

    @pytest.mark.parametrize("number", cases(24))
    def test_structure(self, number: int, tmp_path: Path) -> None:
        rng = generator("structure", number)
        path = tmp_path / "odd.yaml"
        path.write_text(structure(number, rng), errors="surrogatepass")
        print(path.read_text(errors="replace")[:300])

        def read() -> None:
            config = load_config(path)
            check(config)
            check_dump(config, tmp_path)
            check_network(config)
            test_protocol(config)
            raise AssertionError("nothing was wrong with it")

        accepted(read, ("odd.yaml", "protocol"))


def structure(number: int, rng: random.Random) -> str:
    """Return the text of a config whose form is at fault."""
    odd = json.dumps(rng.choice(ODD_TEXTS))[1:-1]
    free = rng.choice(("Method:\n  options", "Method:\n  backbone_options", "Data:\n  protocol_options"))
    bomb = BOMB.replace("\n", "\n    ")
    deep = "{a: " * rng.choice((20, 300, 5000))
    texts = (
        f"{free}:\n    {bomb}\n",
        f"{BOMB}\n{free}: *j\n",
        f"Data:\n  {BOMB}".replace("\n", "\n  "),
        f"{free}: {{x: {deep}1{'}' * (len(deep) // 4)}}}\n",
        f"{free}: {{x: {'[' * rng.choice((300, 5000))}\n",
        f'Train:\n  "{odd}": 1\n',
        f'"{odd}":\n  epochs: 1\n',
        f'{free}: {{"{odd}": 1}}\n' if odd not in ("-1", "nan") else "x: y\n",
        f'_base_: "{odd}"\n',
        f"_base_: [{', '.join(['odd.yaml'] * 50)}]\n",
        "_base_: .\n",
        "_base_: /dev/zero\n",
        "Train: &t\n  epochs: 3\nData:\n  <<: *t\n  split: 9\n",
        "Train:\n  epochs: 3\n---\nTrain:\n  epochs: 4\n",
        "Train:\n  epochs: 3\n  Epochs: 4\n",
        "Train:\n" + "".join(f"  key{i}: {i}\n" for i in range(3000)),
        f"{'#' * 3_000_000}\nTrain: 1\n",
        "Train:\n  epochs: 10\n  start_epoch: 10\n",
        "Train:\n  epochs: 10\n  start_epoch: 11\n",
        f"{free}: {{epochs: 2020-01-01}}\n",
        f"{free}: {{epochs: !!set {{a, b}}}}\n",
        "Test_Finetune:\n  adapt: magic\n",
        "Test_Finetune:\n  seeds: []\n",
        "Test_Finetune:\n  seeds: [1, 1]\n",
    )
    return texts[number % len(texts)]


def test_every_number_of_a_config_has_a_range() -> None:
    """``RANGES`` is what the tests above hold values against."""
    named = [
        name for model in SECTIONS.values() for name, field in model.model_fields.items() if _is_number(field)
    ]
    options = [
        name
        for method in METHODS.values()
        for name, kind in typing.get_type_hints(method.Options).items()
        if kind in (int, float)
    ]
    assert [name for name in (*named, *options) if name not in RANGES] == []


def _is_number(field: typing.Any) -> bool:
    return re.search(r"\b(int|float)\b", str(field.annotation)) is not None
