"""Class names of the public data sets, in the order of their ids."""

from __future__ import annotations

from fewseg.dataset.shapes.forms import CLASS_NAMES as SHAPES_NAMES
from fewseg.util.errors import DataError

_VOC = """background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog,
horse, motorbike, person, pottedplant, sheep, sofa, train, tvmonitor"""

_COCO = """background, person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear,
zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball,
kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup,
fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut,
cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard,
cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush"""

VOC_NAMES, COCO_NAMES = (tuple(names.replace("\n", " ").split(", ")) for names in (_VOC, _COCO))

NAMES = {"pascal": VOC_NAMES, "coco": COCO_NAMES, "shapes": SHAPES_NAMES}
"""Data set -> name of every class by id."""


def known_names(data_set: str) -> tuple[str, ...]:
    """Return the class names of ``data_set``, "background" first.

    Raises:
        DataError: the data set has no fixed class names.
    """
    if data_set not in NAMES:
        raise DataError(
            f"data_set {data_set}: its class names are not known; put them into classes.txt, one per line"
        )
    return NAMES[data_set]
