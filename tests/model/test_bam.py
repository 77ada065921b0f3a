"""BAM's own switches, and what every meta-learner must do."""

import torch

from tests.model.tester import ShotWeightsTester, random_episode


class TestBAM(ShotWeightsTester):
    method = "bam"
    options = {"channels": 16}

    def test_without_base_learner(self) -> None:
        model = self.build(base=None).eval()
        with torch.no_grad():
            prediction = model(random_episode(65))
        assert "base" not in prediction.parts
        assert prediction.logits.shape == (2, 2, 65, 65)

    def test_base_class_of_the_episode_is_not_background_in_training(self) -> None:
        model = self.build()
        episode = random_episode(65)
        query = model.encode_query(episode.query)
        meta = torch.zeros(2, 2, *query["base"].shape[-2:])
        with torch.no_grad():
            model.ensemble.cls_merge.weight.copy_(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1))
            distance = torch.zeros(2)
            known = model.ensemble(meta, query["base"], distance)[:, 0]
            without = model.ensemble(meta, query["base"], distance, torch.tensor([3, 14]))[:, 0]
        probability = query["base"].softmax(1)
        torch.testing.assert_close(known[0] - without[0], probability[0, 4])
        torch.testing.assert_close(known[1] - without[1], probability[1, 15])
