"""`minddiffuser maps`, run as a user would."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from minddiffuser.cli.commands import app
from tests.conftest import Cli

pytestmark = pytest.mark.slow


def test_maps_of_a_simulated_participant_are_figures_and_one_page(cli: Cli, small_bundle: Path, tmp_path: Path) -> None:
    """Each feature has figures and latencies in the window; the page holds its figures and loads nothing."""
    command = ["maps", str(small_bundle), "--out", str(tmp_path / "maps"), "--json"]
    run = CliRunner().invoke(app, command, env=cli.environment)
    assert run.exit_code == 0, run.output
    answer = json.loads(run.stdout)
    assert set(answer["features"]) == {"c", "z", "s1", "s2", "s3"}
    assert answer["data"] == "simulated EEG"
    assert answer["features"]["z"]["best"] > answer["chance"]["family_wise_threshold"] > 0
    assert all(0 < one["best_s"] < 0.5 for one in answer["features"].values())
    # Its sources answer from some 45 ms on; a window's centre would call that 32 ms, and too early.
    assert answer["warnings"] == []
    begun = [(one["not_before_s"], one["rise_s"]) for one in answer["features"].values() if one["rise_s"] is not None]
    assert any(low < 0.06 for low, _ in begun)
    assert all(low < high and high > 0.04 for low, high in begun)
    assert len(answer["files"]) == 12
    for file in answer["files"]:
        assert Path(file).read_bytes().startswith(b"\x89PNG")
    page = Path(answer["page"]).read_text("utf-8")
    assert page.count("data:image/webp;base64,") == 12
    assert len(page) < 1_500_000
    assert not re.findall(r"https?://|<script", page)
    assert "simulated EEG" in page


def test_maps_of_a_folder_that_is_no_bundle_are_refused_in_one_line(cli: Cli, tmp_path: Path) -> None:
    """A wrong path gives one line, exit code 1 and no traceback."""
    run = cli("maps", str(tmp_path))
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert "no bundle at" in run.stderr
