"""What may be chosen of the large data sets, and how one that is not there is named.

Trained and evaluated are their configs in tests/benchmarks/test_published.py.
"""

from pathlib import Path

import pytest
import yaml

from minddiffuser.config.spec import parse_config
from minddiffuser.errors import ConfigError
from tests.conftest import ROOT, Cli


def test_a_data_set_without_that_choice_says_so() -> None:
    """What may be chosen of one data set is refused where it would be looked at by nobody."""
    raw = yaml.safe_load((ROOT / "configs" / "v4-photos.yaml").read_text("utf-8"))
    raw["data"] |= {"subject": 2, "region": "V4"}
    with pytest.raises(ConfigError, match="data set 'v4-photos' leaves no choice of region, subject; take it out"):
        parse_config(raw, "v4-photos.yaml")


def test_a_session_of_digits_is_a_name() -> None:
    """YAML reads 210224 as a number; it names the session all the same."""
    raw = yaml.safe_load((ROOT / "configs" / "v4-photos.yaml").read_text("utf-8"))
    raw["data"] |= {"session": 210224}
    assert parse_config(raw, "v4-photos.yaml").data.session == "210224"


def test_a_missing_folder_is_one_line_on_stderr(cli: Cli, tmp_path: Path) -> None:
    """Exit code 1, the path and where the public finds the data, and no traceback."""
    run = cli("train", "configs/nsd-fmri.yaml", "--data", str(tmp_path))
    assert run.returncode == 1
    assert len(run.stderr.strip().splitlines()) == 1
    assert f"{tmp_path / 'nsd'} is missing; the data come from naturalscenesdataset.org" in run.stderr
