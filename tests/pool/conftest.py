"""One Ray cluster for all tests of the pool."""

from collections.abc import Iterator

import pytest

from tests.conftest import Cli
from tests.pool.pools import RayCluster, end, gone


@pytest.fixture(scope="session")
def cluster(cli: Cli) -> Iterator[RayCluster]:
    """Start two nodes; in the end no process of them is left."""
    cluster = RayCluster.start(cli)
    processes = cluster.processes()
    yield cluster
    processes += cluster.processes()
    cluster.stop()
    left = gone(processes, 30)
    end(processes)
    assert not left
