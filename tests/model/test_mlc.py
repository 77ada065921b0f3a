"""MLC's own switches, and what every meta-learner must do."""

import pytest
import torch
from tester import MetaLearnerTester, random_episode

from model import create_adapter, create_model
from model.interface import Episode
from model.published import load_published, to_published
from model.recognise import recognise


class TestMLC(MetaLearnerTester):
    method = "mlc"
    any_shot = True

    def test_signed_features(self) -> None:
        model = self.build().eval()
        assert model.encode_query(random_episode(65).query)["feature"].min() < 0

    def test_scales_and_offsets_of_the_backbone_stay(self) -> None:
        model = self.build().train()
        norms = [name for name, p in model.backbone.named_parameters() if not p.requires_grad]
        assert norms and all(p.ndim == 1 for p in map(model.backbone.get_parameter, norms))
        assert all(p.requires_grad for p in model.backbone.parameters() if p.ndim > 1)

    def test_images_of_other_sizes_than_the_supports(self) -> None:
        model = self.build().eval()
        episode, other = random_episode(65), random_episode(81)
        mixed = Episode(**{**vars(episode), "query": other.query[..., :70], "query_mask": None})
        with torch.no_grad():
            assert model(mixed).logits.shape == (2, 2, 81, 70)

    def test_void_pixels_of_a_support_count_nowhere(self) -> None:
        model = self.build().eval()
        episode = random_episode(65)
        image, mask = episode.support[:, 0, 0], episode.support_mask[:, 0, 0]
        with torch.no_grad():
            void = model.encode_support(image, torch.full_like(mask, 255))
        assert all(not tensor.any() for tensor in void.values())

    def test_adaptation_changes_nothing_but_the_guidance(self) -> None:
        model = self.build().eval()
        episode = random_episode(65, batch=1)
        adapted = create_adapter("eftnet", model, rounds=2)(episode).logits
        assert adapted.isfinite().all()
        with torch.no_grad():
            assert not torch.allclose(adapted, model(episode).logits)

    def test_base_learner_is_refused(self) -> None:
        with pytest.raises(ValueError, match=r"mlc reads no further than layer3.*base: none"):
            self.build(base="pspnet")

    def test_vgg_is_refused(self) -> None:
        with pytest.raises(ValueError, match="mlc cuts off the last stage of a ResNet"):
            create_model("mlc", backbone="vgg16")


@pytest.mark.parametrize("backbone", ["resnet50", "resnet101"])
def test_published_file_is_read_and_recognised(backbone: str) -> None:
    model = create_model("mlc", backbone=backbone)
    published = to_published(model, model.state_dict())
    assert {
        "backbone.conv1.0.weight",
        "backbone.bn1.bias",
        "backbone.layer3.5.bn3.weight",
    } <= published.keys()
    other = create_model("mlc", backbone=backbone)
    load_published(other, published)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    found = recognise(published)
    assert (found.name, found.backbone, found.base_classes) == ("mlc", backbone, None)
