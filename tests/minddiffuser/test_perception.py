"""Networks as judges: the engine's own CLIP, and torchvision's with weights from a file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model

from engine.composing.compose import images, load_test_stimuli
from engine.models.loading import load_models
from engine.spec import ModelSpec
from minddiffuser.errors import AppError
from minddiffuser.evaluation.perception import NETWORKS, Judges, missing_networks

STIMULI = load_test_stimuli()[:24]
OWN = np.arange(len(STIMULI))


def test_the_pictures_themselves_are_found_again_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CLIP finds every picture among all, and at chance finds one where each is held against another's truth."""
    monkeypatch.setenv("MINDDIFFUSER_JUDGES", str(tmp_path))
    models = load_models(ModelSpec(), "cpu")
    shown = images(STIMULI)
    judges = Judges(models)
    assert set(judges.embed) == {"clip", "clip1"}
    assert missing_networks() == list(NETWORKS)
    own = judges.against(shown)(OWN, shown)
    assert own["two_way_clip"].min() == own["two_way_clip1"].min() == own["retrieval_top1"].min() == 1
    other = judges.against(shown)(np.roll(OWN, 5), shown)
    assert other["retrieval_top1"].max() == 0
    assert 0.3 < other["two_way_clip"].mean() < 0.7


def test_zero_shot_clip_names_what_is_in_the_pictures() -> None:
    """Names go with their own pictures far above chance, and not with those of other pictures."""
    judges = Judges(load_models(ModelSpec(), "cpu"))
    shown, concepts = images(STIMULI), [stimulus.concept for stimulus in STIMULI]
    right = judges.against(shown, concepts)(OWN, shown)["concept_top5"].mean()
    wrong = judges.against(shown, concepts)(np.roll(OWN, 7), shown)["concept_top5"].mean()
    assert right > 0.6
    assert wrong < 0.45


def test_networks_of_the_field_judge_where_their_weights_lie_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An AlexNet with any weights finds each picture again; a file of other weights is refused by name."""
    monkeypatch.setenv("MINDDIFFUSER_JUDGES", str(tmp_path))
    models = load_models(ModelSpec(), "cpu")
    torch.manual_seed(0)
    save_file(get_model("alexnet", weights=None).state_dict(), tmp_path / "alexnet.safetensors")
    shown = images(STIMULI[:6])
    scores = Judges(models).against(shown)(OWN[:6], shown)
    assert scores["two_way_alexnet2"].min() == scores["two_way_alexnet5"].min() == 1
    save_file({"fc.weight": torch.zeros(2, 2)}, tmp_path / "swav_resnet50.safetensors")
    with pytest.raises(AppError, match=r"swav_resnet50\.safetensors"):
        Judges(models)
