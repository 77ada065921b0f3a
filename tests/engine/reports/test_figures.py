"""Figures show the maps that a model declares, the cases that the counts tell, and suit a paper."""

from __future__ import annotations

import ast
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewseg.engine.reports.figures.cases import BEST, TYPICAL, WORST, choose_cases, episode_ious
from fewseg.engine.reports.figures.encodings import ObjectVectors, encodings_figure, few_classes, project
from fewseg.engine.reports.figures.episode import episode_figure
from fewseg.engine.reports.figures.maps import HeatMap, LabelMap, maps_of
from fewseg.engine.reports.figures.sheet import COLUMNS, Tile, sheet, text_width, wrapped
from fewseg.engine.reports.figures.style import DPI, PAGE_WIDTH, write_figure
from fewseg.model import create_adapter, create_model
from fewseg.model.contract import Map, MapKind, Prediction
from fewseg.util.results.episode_counts import EpisodeCounts
from tests.model.tester import random_episode

ROOT = Path(__file__).resolve().parents[3]
IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)


def shown(maps: list[Map], **parts: torch.Tensor) -> list[HeatMap | LabelMap]:
    prediction = Prediction(torch.zeros(1, 2, 4, 4), parts)
    return maps_of(maps, prediction, lambda part: part[0].numpy(), ["cat", "dog"])


class TestMaps:
    def test_overlay_differs_where_the_map_differs(self):
        values = np.zeros((24, 32), np.float32)
        other = values.copy()
        other[3:9, 5:20] = 0.5
        first, second = (HeatMap("map", each, (0, 1)).over(IMAGE) for each in (values, other))
        assert np.array_equal((first != second).any(2), values != other)

    def test_labels_have_the_colours_of_the_legend(self):
        labels = np.zeros((24, 32), np.int64)
        labels[:5] = 2
        label_map = LabelMap("labels", labels, ("a", "b", "c"))
        assert list(label_map.legend) == ["a", "c"]
        over = label_map.over(np.zeros_like(IMAGE)).astype(float)
        ratio = over[0, 0] / np.maximum(label_map.legend["c"], 1)
        assert ratio == pytest.approx(np.full(3, ratio[0]), abs=0.02)

    def test_kinds_turn_a_part_into_what_they_say(self):
        part = torch.randn(1, 3, 4, 4)
        (mean,) = shown([Map("x", "mean", MapKind.MEAN)], x=part)
        assert mean.values == pytest.approx(part[0].mean(0).numpy(), abs=1e-6)
        (foreground,) = shown([Map("x", "object", MapKind.FOREGROUND)], x=part)
        assert foreground.values == pytest.approx(part.softmax(1)[0, 1:].sum(0).numpy(), abs=1e-6)
        (assigned,) = shown([Map("x", "to", MapKind.ASSIGNMENT, names=("p", "q"))], x=part)
        assert np.array_equal(assigned.labels, part[0].argmax(0).numpy()) and assigned.names == (
            "p",
            "q",
            "3",
        )
        (base,) = shown([Map("x", "base", MapKind.BASE_CLASSES)], x=part)
        assert base.names == ("background", "cat", "dog")

    def test_channels_series_and_weights_are_named(self):
        weighted = Map("x", "map", MapKind.LOGITS, (0, 1), ("rest", "object"), weights="w")
        found = shown([weighted], x=torch.zeros(1, 2, 4, 4), w=torch.tensor([[0.25, 0.75]]))
        assert [each.title for each in found] == ["map: rest, weight 0.25", "map: object, weight 0.75"]
        assert found[0].caption.endswith("(0.00\xa0to\xa01.00)") and (found[0].values == 0.5).all()
        series = {f"pass{n}": torch.full((1, 1, 4, 4), float(n)) for n in range(3)}
        assert [each.title for each in shown([Map("pass#", "pass #")], **series)] == [
            "pass 1",
            "pass 2",
            "pass 3",
        ]

    def test_rounds_of_an_adaptation_share_their_colours(self):
        model = create_model(
            "pfenet", backbone="resnet18", image_size=65, backbone_options={"width": 8}, channels=16
        )
        adapter = create_adapter("eftnet", model.eval(), rounds=2)
        prediction = adapter(random_episode(65, batch=1))
        rounds = [
            each
            for each in maps_of(adapter.maps, prediction, lambda part: part[0].detach().numpy())
            if each.title.startswith("round")
        ]
        assert [each.title for each in rounds] == ["round 0", "round 1", "round 2"]
        assert len({each.limits for each in rounds}) == 1
        assert rounds[0].values.shape == (65, 65) and not np.array_equal(rounds[0].values, rounds[2].values)


class TestCases:
    def test_best_worst_and_typical_episodes_are_those_of_the_counts(self):
        ious = np.random.default_rng(0).permutation(40).reshape(2, 20) / 40
        cases = choose_cases(ious, 2)
        assert all(ious[case.seed, case.episode] == case.iou == case.share for case in cases)
        by_kind = {
            kind: [case.iou * 40 for case in cases if case.kind == kind] for kind in (BEST, WORST, TYPICAL)
        }
        assert by_kind == {BEST: [39, 38], WORST: [0, 1], TYPICAL: [10, 30]}

    def test_the_best_show_different_queries(self):
        ious = np.array([[0.1, 0.9, 0.8, 0.5]])
        cases = choose_cases(ious, 2, lambda seed, episode: "one" if episode in (1, 2) else str(episode))
        assert [case.episode for case in cases if case.kind == BEST] == [1, 3]

    def test_iou_is_that_of_the_novel_classes(self):
        counts = np.zeros((1, 2, 2, 3), np.int32)
        counts[0, :, 1] = [[3, 4, 4], [0, 0, 0]]
        counts[0, :, 0] = [[9, 9, 9], [5, 9, 9]]
        rows = np.array([[[0, 1], [0, 2]]], np.int16)
        stored = EpisodeCounts(np.array(["0"]), rows, counts, np.zeros(0), 3, 1, True)
        assert episode_ious(stored).tolist() == [[0.75, 0]]

    def test_fewer_episodes_than_asked_for_are_shown_once(self):
        cases = choose_cases(np.array([[0.5, 0.25]]), 5)
        assert [case.iou for case in cases] == [0.5, 0.25, 0.25, 0.5, 0.25, 0.5]


class TestSheet:
    def tiles(self, number: int) -> list[Tile]:
        long = "a caption that is much too long for the width of its column (0.00\xa0to\xa01.00)"
        legend = {f"class with a long name {n}": (n, 0, 0) for n in range(9)}
        return [
            Tile(long if n % 2 else "short", IMAGE, n == 1, legend if n == 2 else {}) for n in range(number)
        ]

    def test_no_texts_overlap_and_none_leaves_the_figure(self):
        figure = sheet([self.tiles(COLUMNS), self.tiles(3)])
        renderer = figure.canvas.get_renderer()
        boxes = [text.get_window_extent(renderer) for text in figure.texts]
        boxes += [axes.get_window_extent(renderer) for axes in figure.axes]
        assert len(boxes) > 2 * 9
        for one, other in combinations(boxes, 2):
            width = min(one.x1, other.x1) - max(one.x0, other.x0)
            height = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert min(width, height) <= 1.5  # pixels, of 300 per inch
        for box in boxes:
            assert (
                min(box.x0, box.y0) >= -1.5
                and box.x1 <= figure.bbox.x1 + 1.5
                and box.y1 <= figure.bbox.y1 + 1.5
            )

    def test_columns_are_as_wide_in_every_figure(self):
        figures = [sheet([self.tiles(number)]) for number in (3, COLUMNS)]
        first, second = (figure.axes[0].get_window_extent().width for figure in figures)
        assert first == pytest.approx(second) and figures[1].get_figwidth() == pytest.approx(PAGE_WIDTH)

    def test_texts_are_wrapped_to_their_width(self):
        lines = wrapped("some words and averyveryverylongwordthatfitsnowhere", 0.6)
        assert len(lines) > 2 and lines[-1].endswith("…")
        assert all(text_width(line) <= 0.6 for line in lines)

    def test_files_have_300_dpi_and_are_a_page_wide(self, tmp_path):
        png, pdf = write_figure(tmp_path / "figure", sheet([self.tiles(COLUMNS)]))
        with Image.open(png) as image:
            assert image.width == round(PAGE_WIDTH * DPI) and round(image.info["dpi"][0]) == 300
        assert pdf.read_bytes().startswith(b"%PDF") and b"/Type3" not in pdf.read_bytes()


class TestEpisode:
    @pytest.mark.parametrize("shots", [1, 5])
    def test_a_notebook_gets_a_figure_of_a_model_and_an_episode(self, shots):
        model = create_model(
            "panet", backbone="resnet18", shot=shots, image_size=65, backbone_options={"width": 8}
        )
        episode = random_episode(65, batch=1, shots=shots)
        figure = episode_figure(model, episode)
        texts = [text.get_text() for text in figure.texts]
        assert sum(text.startswith("support") for text in texts) == shots
        assert any(text.startswith("assignment") for text in texts)
        two = random_episode(65, batch=2, shots=shots)
        with pytest.raises(ValueError, match="has 2"):
            episode_figure(model, two)

    def test_a_prediction_changes_what_is_shown(self):
        model = create_model("panet", backbone="resnet18", image_size=65, backbone_options={"width": 8})
        episode = replace(random_episode(65, batch=1), query_mask=None)
        logits = torch.zeros(1, 2, 65, 65)
        logits[:, 1, :30] = 1
        figure = episode_figure(model, episode, Prediction(logits))
        query, prediction = (np.asarray(axes.images[0].get_array()) for axes in figure.axes[1:3])
        changed = (query != prediction).any(2)
        assert changed[:30].mean() > 0.9 and not changed[30:].any()


class TestEncodings:
    def test_classes_that_lie_apart_are_shown_apart(self):
        rng = np.random.default_rng(0)
        centres = np.repeat(rng.normal(size=(3, 16)), 10, 0)
        vectors = (centres + 0.01 * rng.normal(size=centres.shape)).astype(np.float32)
        ids = np.repeat([1, 2, 3], 10)
        for projection in ("pca", "tsne"):
            points = project(vectors, projection)
            nearest = np.linalg.norm(points[:, None] - points, axis=2)
            np.fill_diagonal(nearest, np.inf)
            assert points.shape == (30, 2) and (ids[nearest.argmin(1)] == ids).all()
        names = ["a rather long name", "dog", "bus"]
        figure = encodings_figure(
            ObjectVectors(vectors, ids, {1: names[0]}, {2: names[1], 3: names[2]}), "pca"
        )
        figure.canvas.draw()
        texts = figure.legends[0].get_texts()
        assert [text.get_text() for text in texts] == [f"{names[0]} (novel)", "dog (base)", "bus (base)"]
        boxes = [text.get_window_extent() for text in texts]
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))

    def test_of_many_classes_novel_and_base_ones_are_shown_in_equal_parts(self):
        assert few_classes(range(1, 21), set(range(1, 6))) == set(range(1, 21))  # as in a fold of PASCAL
        shown = few_classes(range(1, 81), set(range(1, 81, 4)))
        assert sorted(c % 4 == 1 for c in shown) == [False] * 10 + [True] * 10
        alone = few_classes(range(1, 51), set(range(1, 51)))
        assert len(alone) == 20 and max(alone) - min(alone) > 40

    def test_too_few_are_refused(self):
        with pytest.raises(ValueError, match="at least 5"):
            project(np.zeros((3, 4), np.float32))


def test_start_up_imports_neither_matplotlib_nor_scikit_learn():
    for file in [*(ROOT / "engine").rglob("*.py"), *(ROOT / "util").rglob("*.py"), *ROOT.glob("*.py")]:
        for node in ast.parse(file.read_text()).body:  # not those within functions or below TYPE_CHECKING
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"matplotlib", "sklearn"}, file
