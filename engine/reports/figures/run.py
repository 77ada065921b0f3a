"""All figures of one test run, and the page that shows them."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fewseg.dataset.loading.evaluation import EpisodeSet, PlannedEpisode
from fewseg.engine.evaluation.one_by_one import predict
from fewseg.engine.evaluation.tally import seed_episode
from fewseg.engine.reports.figures.cases import BEST, TYPICAL, WORST, Case, choose_cases, episode_ious
from fewseg.engine.reports.figures.encodings import FEWEST, TITLES, collect_vectors, encodings_figure
from fewseg.engine.reports.figures.episode import ShownEpisode, in_rows, shown_episode
from fewseg.engine.reports.figures.sheet import COLUMNS, sheet
from fewseg.engine.reports.figures.style import write_figure
from fewseg.engine.reports.page import PAGE, html_page
from fewseg.engine.setup.build import Adapter
from fewseg.model.fewshot import FewShotModel
from fewseg.util.errors import ResultError
from fewseg.util.files import write_text
from fewseg.util.progress import progress
from fewseg.util.results.episode_counts import EpisodeCounts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_ROWS = 6
"""Episodes of an overview."""
_SUPPORTS = 2
"""Supports of an episode in an overview."""
_ZOOM = 0.5
"""Size of a picture's pixels in the page: 300 of them are an inch in a paper, and 96 on a screen."""
_KINDS = {BEST: "Success cases", WORST: "Failure cases", TYPICAL: "Typical cases"}
_MEANING = {
    BEST: "the highest IoU, one episode per query",
    WORST: "the lowest IoU, one episode per query",
    TYPICAL: "the middles of equal parts of all episodes by IoU",
}


@dataclass(frozen=True)
class Tested:
    """What the figures of a test show.

    Attributes:
        model: the model on its device.
        adapter: the model in its test-time adaptation, or None.
        episodes: episodes of the test.
        counts: counts of every episode, or None where they are not known.
        base_names: names of the base classes of the training.
        title: name of the test in the page.
    """

    model: FewShotModel
    adapter: Adapter | None
    episodes: EpisodeSet
    counts: EpisodeCounts | None
    base_names: Sequence[str]
    title: str


@dataclass(frozen=True)
class _Figure:
    """A figure of the page.

    Attributes:
        name: name of its files without suffix.
        heading: heading of the section that it begins, or an empty text.
        caption: what it shows.
    """

    name: str
    heading: str
    caption: str


def write_figures(tested: Tested, folder: Path, number: int) -> Path:
    """Write the figures of a test as PNG and PDF, replace earlier ones, and return the page that shows them.

    Args:
        tested: the test.
        folder: folder of the figures.
        number: number of best, of worst and of typical episodes.

    Raises:
        ResultError: a file cannot be written.
    """
    for earlier in (*folder.glob("*.png"), *folder.glob("*.pdf")):
        earlier.unlink()
    figures = []
    for entry, figure in _figures(tested, number):
        write_figure(folder / entry.name, figure)
        figures.append(entry)
    body = [f"<h1>{html.escape(tested.title)}</h1>"]
    if tested.counts is None:
        body.append("<p>The seeds differ in their number of episodes, so no cases were chosen.</p>")
    page = folder / PAGE
    write_text(page, html_page(tested.title, "".join([*body, *map(_html, figures)])), ResultError)
    return page


def _figures(tested: Tested, number: int) -> Iterator[tuple[_Figure, Figure]]:
    if tested.counts is not None:
        yield from _cases(tested, tested.counts, number)
    objects = collect_vectors(tested.model, tested.episodes)
    for projection, title in TITLES.items() if len(objects.vectors) >= FEWEST else ():
        count = len(objects.vectors)
        caption = f"{title} of the encodings of {count} objects of the test images, encoded as supports"
        heading = "" if projection != next(iter(TITLES)) else "Encodings by class"
        yield _Figure(f"encodings_{projection}", heading, caption), encodings_figure(objects, projection)


def _cases(tested: Tested, counts: EpisodeCounts, number: int) -> Iterator[tuple[_Figure, Figure]]:
    """Yield an overview of every kind of case, and a figure with all maps of each case."""
    planned = {(item.manifest_index, item.episode_index): item for item in tested.episodes}
    cases = choose_cases(
        episode_ious(counts), number, lambda seed, episode: planned[seed, episode].spec.query
    )
    shown = [
        (case, _shown(tested, planned[case.seed, case.episode], case)) for case in progress(cases, "figures")
    ]
    for kind, heading in _KINDS.items():
        own = [(case, episode) for case, episode in shown if case.kind == kind]
        for first in range(0, len(own), _ROWS):
            rows = [episode.tiles(_SUPPORTS)[:COLUMNS] for _, episode in own[first : first + _ROWS]]
            name = kind if len(own) <= _ROWS else f"{kind}_page{first // _ROWS + 1}"
            yield _Figure(name, heading if not first else "", _MEANING[kind]), sheet(rows)
        for place, (case, episode) in enumerate(own, 1):
            name = planned[case.seed, case.episode].spec.query
            caption = (
                f"{name}, seed {tested.episodes.manifests[case.seed].seed}, episode {case.episode}: IoU "
                f"{case.iou:.1%}, above {case.share:.0%} of all episodes"
            )
            yield _Figure(f"{kind}_{place}", "", caption), sheet(in_rows(episode.tiles()))


def _shown(tested: Tested, planned: PlannedEpisode, case: Case) -> ShownEpisode:
    """Segment an episode as in the test."""
    model, adapter = tested.model.eval(), tested.adapter
    episode, _ = tested.episodes.load(planned, with_truth=adapter is not None and adapter.oracle)
    seed_episode(tested.episodes, planned, model.device)
    episode = episode.to(model.device)
    prediction = predict(model, episode) if adapter is None else adapter(episode)
    maps = (adapter or model).maps
    return shown_episode(
        maps, tested.episodes, planned, prediction, iou=case.iou, base_names=tested.base_names
    )


def _html(figure: _Figure) -> str:
    heading = f"<h2>{html.escape(figure.heading)}</h2>" if figure.heading else ""
    name, caption = html.escape(figure.name), html.escape(figure.caption)
    return (
        f'{heading}<p>{caption} (<a href="{name}.png">PNG</a>, <a href="{name}.pdf">PDF</a>)</p>'
        f'<img src="{name}.png" alt="{caption}" style="zoom:{_ZOOM};border:0">'
    )
