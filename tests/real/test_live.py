"""Real recordings through the whole loop: trained, replayed over LSL, decoded live, received over MQTT."""

import json
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.datafolder import DATA, data_set

pytestmark = [pytest.mark.real, pytest.mark.slow]


def test_human_eeg_gives_the_same_pictures_live_as_offline(cli: Cli, tmp_path: Path) -> None:
    """Replayed over LSL and received over MQTT, a headband's windows give the very pictures they give offline."""
    data_set("muse-faces")
    bundle = tmp_path / "muse"
    run = cli("train", "configs/muse-faces.yaml", "--data", str(DATA), "--out", str(bundle))
    assert run.returncode == 0, run.stderr
    run = cli("evaluate", str(bundle), "--data", str(DATA), "--limit", "12", "--json")
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)["live_equals_offline"]
    assert found["equal"], found
    assert found["windows"] == found["same_seed"] == found["identical"] >= 10
    assert found["largest_difference"] == 0
    assert 0 < found["encoding_difference"] < 5


def test_human_fmri_decodes_live_as_offline(cli: Cli, tmp_path: Path) -> None:
    """Every trial is decoded by weights that never saw its figure, and live and offline figures agree."""
    data_set("miyawaki-fmri")
    bundle = tmp_path / "miyawaki"
    run = cli("train", "configs/miyawaki-fmri.yaml", "--data", str(DATA), "--out", str(bundle))
    assert run.returncode == 0, run.stderr
    run = cli("evaluate", str(bundle), "--data", str(DATA), "--limit", "24", "--json")
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)
    assert answer["data"] == "human V1 fMRI (Miyawaki 2008), figures"
    assert answer["live"]["n"] == answer["offline"]["n"] == 24
    assert answer["live"]["account"]["lost"] == 0
    assert answer["offline"]["stage2"]["pixcorr"] > answer["offline"]["mean_image"]["pixcorr"] + 0.1
    for metric in ("pixcorr", "ssim", "two_way"):
        assert answer["live"]["stage2"][metric] == pytest.approx(answer["offline"]["stage2"][metric], abs=0.02)
