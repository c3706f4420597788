import numpy as np
import pytest
from pydantic import ValidationError

from benchmarks.choosing import Shown, score, with_settings
from decoder.evaluation.pose import pose_of_mask
from engine.composing.compose import alpha_of, compose
from engine.composing.pack import load_pack
from engine.models.loading import load_models
from engine.spec import EngineSpec
from minddiffuser.config.spec import load_config
from tests.conftest import ROOT


def test_settings_are_of_stage_2_or_of_the_engine() -> None:
    """A plain name is stage 2's; what a config says otherwise stays, and what does not exist is refused."""
    for spec in (EngineSpec(), load_config(ROOT / "configs" / "demo-fmri.yaml").engine):
        changed = with_settings(spec, {"candidates": 3, "engine.strength": 0.5})
        assert (changed.structure.candidates, changed.strength) == (3, 0.5)
        assert changed.structure.renoise_strength == spec.structure.renoise_strength
        assert type(changed) is type(spec)
    with pytest.raises(ValidationError, match="drafts"):
        with_settings(EngineSpec(), {"drafts": 3})


def test_originals_score_well_and_other_pictures_do_not() -> None:
    """What was shown is where it was shown, and is itself; the same pictures in another order are neither."""
    models, pack = load_models(EngineSpec().models, "cpu"), load_pack()
    stimuli = compose(pack, 8, 9_300_000)
    originals = np.stack([stimulus.image for stimulus in stimuli])
    poses = [pose_of_mask(alpha_of(pack, stimulus)) for stimulus in stimuli]
    shown = Shown([], originals, poses, [stimulus.concept for stimulus in stimuli])
    itself, other = score(models, shown, originals), score(models, shown, np.roll(originals, 1, axis=0))
    assert itself["pixcorr"] == pytest.approx(1)
    assert itself["position"] < 0.05
    assert other["pixcorr"] < 0.5
    assert other["position"] > 0.1
