"""The configs of the large data sets, through the real commands, on small files in the published layouts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from minddiffuser.cli.commands import app
from minddiffuser.config import parse_config
from minddiffuser.errors import ConfigError
from tests.conftest import ROOT, Cli
from tests.decoder.datasets.published import write_eeg2_images, write_eeg2_preprocessed, write_meg, write_nsd

SMALLER = {"features": ["c", "z"]}
FASTER = {"backend": "torch", "steps": 1, "strength": 0.3, "structure": {"mode": "none"}}


def write_eeg2(root: Path) -> None:
    """Write THINGS-EEG2: 30 pictures to train on, 6 to test on."""
    write_eeg2_preprocessed(root, write_eeg2_images(root, concepts=15, exemplars=2))


def write_one_session(root: Path) -> None:
    """Write NSD: one session of 30 pictures and 6 that everybody saw."""
    write_nsd(root, own=30, shared=6)


@pytest.mark.parametrize(
    ("name", "write", "data", "description", "n"),
    [
        ("things-eeg2", write_eeg2, {}, "human EEG (THINGS-EEG2, subject 1)", 6),
        ("things-meg", write_meg, {}, "human MEG (THINGS-MEG, subject 1)", 5),
        ("nsd-fmri", write_one_session, {"sessions": 1}, "human fMRI (NSD, subject 1)", 6),
    ],
)
def test_a_config_trains_and_is_evaluated_on_its_published_layout(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    write: Callable[[Path], object],
    data: dict[str, Any],
    description: str,
    n: int,
) -> None:
    """`train` and `evaluate` run on it, and simulated responses to colours give the colours of pictures never seen."""
    write(tmp_path)
    raw = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text("utf-8"))
    raw["data"] |= data
    raw["decoder"] |= SMALLER
    raw["engine"] |= FASTER
    config, bundle = tmp_path / "config.yaml", tmp_path / "bundle"
    config.write_text(yaml.safe_dump(raw), "utf-8")
    # In this process: six starts of the program would take most of the time.
    monkeypatch.setenv("MINDDIFFUSER_CACHE", str(tmp_path / "cache"))
    run = CliRunner().invoke
    trained = run(app, ["train", str(config), "--data", str(tmp_path), "--out", str(bundle), "--json"])
    assert trained.exit_code == 0, trained.stderr
    answer = json.loads(trained.stdout)
    assert answer["data"] == description
    assert answer["scores"]["z"]["two_way"] > 0.8
    evaluated = run(app, ["evaluate", str(bundle), "--data", str(tmp_path), "--offline", "--json"])
    assert evaluated.exit_code == 0, evaluated.stderr
    figures = json.loads(evaluated.stdout)["offline"]
    assert figures["n"] == n
    assert figures["stage1"]["pixcorr"] > figures["mean_image"]["pixcorr"] + 0.3


def test_a_data_set_without_that_choice_says_so() -> None:
    """What may be chosen of one data set is refused where it would be looked at by nobody."""
    raw = yaml.safe_load((ROOT / "configs" / "v4-photos.yaml").read_text("utf-8"))
    raw["data"] |= {"subject": 2, "region": "V4"}
    with pytest.raises(ConfigError, match="data set 'v4-photos' leaves no choice of region, subject; take it out"):
        parse_config(raw, "v4-photos.yaml")


def test_a_missing_folder_is_one_line_on_stderr(cli: Cli, tmp_path: Path) -> None:
    """Exit code 1, the path and where the public finds the data, and no traceback."""
    run = cli("train", "configs/nsd-fmri.yaml", "--data", str(tmp_path))
    assert run.returncode == 1
    assert len(run.stderr.strip().splitlines()) == 1
    assert f"{tmp_path / 'nsd'} is missing; the data come from naturalscenesdataset.org" in run.stderr
