"""The recipe of each large public data set, from files in its published layout to its table."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.published import main
from benchmarks.published_figures import PROTOCOL, table_of
from tests.conftest import ROOT
from tests.decoder.datasets.published import write_eeg2_images, write_eeg2_preprocessed, write_meg, write_nsd

FASTER = {"backend": "torch", "steps": 1, "strength": 0.3, "structure": {"mode": "none"}}


def write_eeg2(root: Path) -> None:
    """Write THINGS-EEG2: 30 pictures to train on, 6 to test on, each shown 80 times."""
    write_eeg2_preprocessed(root, write_eeg2_images(root, concepts=15, exemplars=2), repeats=80)


def write_one_session(root: Path) -> None:
    """Write NSD: one session of 30 pictures and 6 that everybody saw."""
    write_nsd(root, own=30, shared=6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write", "features", "data"),
    [
        ("things-eeg2", write_eeg2, ["c", "z", "e"], {}),
        ("things-meg", write_meg, ["c", "z", "e"], {}),
        ("nsd-fmri", write_one_session, ["c", "z"], {"sessions": 1}),
    ],
)
def test_one_command_writes_the_table_and_goes_on_where_it_was(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    write: Callable[[Path], object],
    features: list[str],
    data: dict[str, Any],
) -> None:
    """Simulated responses give figures above chance beside the published ones; what is done is not done again."""
    write(tmp_path)
    raw = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text("utf-8"))
    raw["data"] |= data
    raw["decoder"] |= {"features": features, "family": "ridge", "text_embedding_from": "tokens"}
    raw["engine"] |= FASTER
    config, out = tmp_path / "config.yaml", tmp_path / "out"
    config.write_text(yaml.safe_dump(raw), "utf-8")
    monkeypatch.setenv("MINDDIFFUSER_CACHE", str(tmp_path / "cache"))
    command = [str(config), "--data", str(tmp_path), "--out", str(out)]
    assert main(command) == 0
    table = (out / "table.md").read_text("utf-8")
    assert "| PixCorr | " in table
    assert PROTOCOL in table
    if "e" in features:
        told = json.loads((out / "sub-01" / "retrieval.json").read_text("utf-8"))
        assert told["two_way"] > 0.7
        assert f"| which of the test pictures, top-1 | {told['top1']:.3f} [" in table
    bundle = out / "sub-01" / "bundle" / "bundle.json"
    assert json.loads(bundle.read_text("utf-8"))["meta"]["scores"]["z"]["two_way"] > 0.8
    offline = json.loads((out / "sub-01" / "pictures.json").read_text("utf-8"))["offline"]
    assert offline["stage1"]["pixcorr"] > offline["mean_image"]["pixcorr"] + 0.3
    before = bundle.stat().st_mtime_ns
    (out / "table.md").unlink()
    assert main(command) == 0
    assert bundle.stat().st_mtime_ns == before
    assert (out / "table.md").read_text("utf-8") == table
    raw["engine"]["strength"] = 0.4
    config.write_text(yaml.safe_dump(raw), "utf-8")
    assert main(command) == 1


def test_the_table_has_published_figures_and_a_mean_of_participants() -> None:
    """Each method is a column; of several participants the mean stands beside them, and a dash where nothing is."""
    one = {"data": "human EEG", "pictures": 200, "gallery": 200, "retrieved_top1": [0.2, 0.1, 0.3]}
    other = one | {"retrieved_top1": [0.4, 0.3, 0.5], "ssim": [0.3, 0.2, 0.4]}
    lines = table_of("things-eeg2", {"participant 1": one, "participant 2": other}, PROTOCOL).splitlines()
    assert lines[2].startswith("| figure | ours, participant 1 | ours, participant 2 | ours, mean | NICE")
    assert (
        "| which of the test pictures, top-1 | 0.200 [0.100, 0.300] | 0.400 [0.300, 0.500] | 0.300 | 0.156 |"
        in lines[4]
    )
    assert "| SSIM | - | 0.300 [0.200, 0.400] | - | - |" in lines[6]
    nsd = table_of("nsd", {"participant 1": {"data": "human fMRI", "pictures": 1000}}, PROTOCOL)
    assert "| two-way, AlexNet 5 | - | 0.978 | 0.986 |" in nsd
    assert "| two-way, CLIP | - | - | 0.930 |" in nsd


def test_a_data_set_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, the path that is missing, and nothing of a table."""
    assert main(["nsd", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert f"{tmp_path / 'nsd'} is missing" in capsys.readouterr().err
    assert not (tmp_path / "out" / "table.md").exists()
    assert main(["v4-photos", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
