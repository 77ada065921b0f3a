"""Images arrive in the order of their first use, from a thread and from workers alike."""

from __future__ import annotations

import pytest
import torch

from fewseg.dataset.reading.transform import normalised
from fewseg.engine.evaluation.images import ImageStream
from fewseg.engine.evaluation.tally import Tally, Task
from fewseg.engine.evaluation.visits import first_uses, plan_visits
from fewseg.engine.setup.build import build_network
from fewseg.engine.setup.data import test_episodes, test_fold_of


@pytest.fixture
def planned(configure):
    """Episodes, and the images that their evaluation needs in this order."""

    def build(**changes):
        config = configure("bam", **changes)
        fold = test_fold_of(config)
        episodes = test_episodes(config, fold)
        visits = plan_visits([Task(build_network(config, fold.classes), Tally(episodes))])
        return episodes, visits, first_uses(visits)

    return build


def test_every_image_comes_once_in_the_order_of_its_first_use(planned):
    _, visits, order = planned(shot=2)
    uses = [key for visit in visits for key in (visit.query, *visit.images())]
    assert len(set(order)) == len(order) < len(uses) and set(order) == set(uses)
    assert [uses.index(key) for key in order] == sorted(uses.index(key) for key in order)


@pytest.mark.parametrize(("workers", "compact"), [(0, False), (2, False), (2, True)])
def test_images_are_those_of_the_episodes(planned, workers, compact):
    episodes, _, order = planned(protocol="cdfss" if compact else "bam")
    stream = ImageStream(episodes, order, workers, compact=compact)
    mixed = [*order[3:0:-1], order[0], *order[4:9], order[2]]  # ahead of their turn, and again
    for key in mixed:
        image, mask = stream.get(key)
        if isinstance(key, str):
            expected, label = episodes.load_query(key)
            assert mask.numpy().tolist() == label.tolist()
        else:
            expected, label = episodes.load_support(*key)
            assert torch.equal(mask.long(), label)
        assert image.dtype == (torch.uint8 if compact else torch.float32)
        assert torch.equal(normalised(image), expected)
