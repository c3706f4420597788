"""Fits on a Ray cluster of two nodes give the bits that they give here."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.pool.pools import RayCluster

pytest.importorskip("ray")

SCRIPT = """
import sys
from decoder.parallel import workers
from decoder.training.train import fit_targets
from tests.decoder.test_crossval import small_world, spec_of

def fitted():
    stimuli, targets, windows = small_world()
    bundle = fit_targets(windows, stimuli, targets, spec_of("ridge"))
    return {f"{name} {key}": v for name, model in bundle.models.items() for key, v in model.tensors().items()}

here = fitted()
with workers(1, sys.argv[1]):
    there = fitted()
assert here.keys() == there.keys()
assert all((here[name] == there[name]).all() for name in here)
print("same", len(here))
"""


@pytest.mark.timeout(240)
@pytest.mark.skipif(sys.platform != "linux", reason="Ray starts clusters of several local nodes on Linux alone")
def test_a_cluster_fits_what_is_fitted_here(cluster: RayCluster) -> None:
    """A bundle's models are the same to the bit, whichever node fitted them."""
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, cluster.address]
    environment = cluster.cli.environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=200, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.splitlines()[-1].startswith("same ")
