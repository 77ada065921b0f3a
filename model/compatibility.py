"""Checks that the parts of a model can be combined; a refused combination gives one line with the reason."""

from __future__ import annotations

from fewseg.model.backbone.contract import ROLES, Backbone
from fewseg.model.contract import MetaLearner
from fewseg.model.records import BASE_FEATURE, SupportView

_WITHOUT_BASE = "leave the base learner out (base: none)"


def check_parts(name: str, method: type[MetaLearner], base: str | None, ensemble: str | None) -> None:
    """Raise ValueError if a method, a base learner and an ensemble of these names cannot be combined."""
    if ensemble is not None and base is None:
        raise ValueError(
            f"ensemble {ensemble!r} merges with a base learner, and there is none; set base: pspnet"
        )
    if ensemble is not None and method.inputs.multi_way:
        raise ValueError(
            f"{name} segments all ways at once and cannot be combined with an ensemble of binary methods"
        )
    if base is None and BASE_FEATURE in (*method.inputs.query, *method.inputs.support):
        raise ValueError(
            f"{name} reads the base learner's features and needs a base learner; set base: pspnet"
        )


def check_backbone(name: str, method: type[MetaLearner], backbone: Backbone) -> None:
    """Raise ValueError if a backbone lacks a feature that a method reads, before the method is built."""
    spec = backbone.spec
    for role in (*method.inputs.query, *method.inputs.support):
        if role in ROLES and role not in spec.roles:
            raise ValueError(
                f"{name} reads the {role} feature, and {spec.name} ends before it, with {spec.deepest}"
            )
    if method.inputs.view is SupportView.MASKED_LAYER4 and spec.high_from is None:
        raise ValueError(
            f"{name} runs the last stage of its backbone alone, on masked features of the stage before; "
            f"{spec.name} cannot; choose a backbone that runs in stages, such as resnet50"
        )
    if method.inputs.view is SupportView.MASK_CHANNEL and backbone.inputs != 4:
        raise ValueError(
            f"{name} shows its backbone the mask as a fourth channel, and {spec.name} as built reads "
            f"{backbone.inputs} channels"
        )


def check_images(name: str, meta: MetaLearner, backbone: Backbone, image_size: int) -> None:
    """Raise ValueError if a backbone cannot process the images of a method."""
    inputs, spec, margin = meta.inputs, backbone.spec, meta.inputs.query_margin
    around = f" with a margin of {margin}" if margin else ""
    sides = {f"image_size of {name}{around}": image_size + 2 * margin}
    sides[f"support_side of {name}"] = inputs.support_side or 0
    for what, side in sides.items():
        if refused := spec.refused_side(side):
            raise ValueError(f"{what}: {refused}")
    if "normalised" not in (inputs.pixel_scale, spec.pixels):
        raise ValueError(
            f"{name} scales pixels to {inputs.pixel_scale!r} for its published weights, and {spec.name} to "
            f"{spec.pixels!r}; leave the method's pixels normalised"
        )


def check_shared_backbone(name: str, meta: MetaLearner, backbone: Backbone) -> None:
    """Raise ValueError if a base learner cannot share the backbone as the method uses it."""
    if meta.inputs.query_margin or meta.inputs.view is SupportView.MASK_CHANNEL:
        raise ValueError(
            f"{name}'s backbone reads padded or masked images, so no base learner can share it; "
            f"{_WITHOUT_BASE}"
        )
    if "high" not in backbone.spec.roles:
        raise ValueError(
            f"{name} reads no further than {backbone.spec.deepest}, but the base learner needs the high "
            f"feature of the same frozen backbone; {_WITHOUT_BASE}"
        )
