"""A pool as a user starts it, on tiny models, and the rooms that ask it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

from decoder.features import Features, LayerTarget
from engine.models.loading import Models
from engine.spec import EngineSpec, ModelSpec, StructureSpec
from minddiffuser.config.engine import RoomEngineSpec
from tests.conftest import Cli

START_S = 150.0
AUTHENTICATED = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a-token-of-ray-for-the-tests-0123456789"}
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
STRUCTURE = StructureSpec(iterations=4, learning_rate=0.08, renoise_strength=0)
"""Optimisation alone, which brings these models' pictures clearly closer to any structure."""


def spec_of(models: Models) -> EngineSpec:
    """Return the engine's settings, the same in the pool and beside it."""
    folder = ModelSpec(folder=models.spec.folder)
    return EngineSpec(models=folder, backend="torch", threads=1, steps=1, structure=STRUCTURE)


@dataclass
class RayCluster:
    """A Ray cluster of two nodes on this machine, of a core each, in processes of its own."""

    cli: Cli
    process: subprocess.Popen[str]
    address: str

    @classmethod
    def start(cls, cli: Cli) -> RayCluster:
        """Start it."""
        cli = Cli(cli.environment | AUTHENTICATED)
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", CLUSTER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=cli.environment,
        )
        return cls(cli, process, first_line(process))

    def processes(self) -> list[psutil.Process]:
        """Return its processes."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def replicas(self) -> list[psutil.Process]:
        """Return the processes of a pool's engines."""
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if "ServeReplica" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def stop(self) -> None:
        """End it."""
        self.process.communicate("", timeout=60)


def first_line(process: subprocess.Popen[str]) -> str:
    """Return the first line that a process says."""
    assert process.stdout is not None
    there, _, _ = select.select([process.stdout], [], [], START_S)
    assert there, "it did not start"
    line = process.stdout.readline()
    assert line, process.communicate()
    return line.strip()


@dataclass
class Pool:
    """`minddiffuser pool` as a process of its own, on a cluster."""

    cluster: RayCluster
    folder: Path
    engine: EngineSpec
    settings: dict[str, Any]
    token: str = "a-token-of-the-tests-0123456789"  # noqa: S105  it opens nothing else
    process: subprocess.Popen[str] | None = None
    url: str = ""
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def token_file(self) -> Path:
        """File with the token."""
        return self.folder / "token"

    @property
    def certificate(self) -> Path:
        """Certificate of the loopback address, signed by itself."""
        return self.folder / "pool.pem"

    def make_secrets(self) -> None:
        """Write the token and the certificate."""
        self.token_file.write_text(self.token + "\n")
        self.token_file.chmod(0o600)
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "pool.key")
        about = ("-days", "2", "-subj", "/CN=pool", "-addext", "subjectAltName=IP:127.0.0.1", "-out", "pool.pem")
        subprocess.run(["openssl", "req", "-x509", *key, *about], cwd=self.folder, check=True, capture_output=True)

    def start(self) -> None:
        """Start it, and wait until every replica is warm; started again, it has the same port."""
        port = int(self.url.rpartition(":")[2]) if self.url else 0
        config = {
            "name": "pool",
            "data": {"dataset": "recording"},
            "source": {"name": "none"},
            "window": {"tmin": 0, "tmax": 0.2},
            "engine": self.engine.model_dump(mode="json", exclude_defaults=True),
            "pool": {
                "port": port,
                "token_file": str(self.token_file),
                "certificate": str(self.certificate),
                "key": str(self.certificate.with_suffix(".key")),
                **self.settings,
            },
        }
        file = self.folder / "pool.yaml"
        file.write_text(yaml.safe_dump(config))
        self.process = self.cluster.cli.start("pool", str(file), "--address", self.cluster.address, "--json")
        self.about = json.loads(first_line(self.process))
        self.url = str(self.about["url"])

    def stop(self) -> dict[str, Any]:
        """End it with Ctrl-C, and return its account."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        self.process = None
        return dict(json.loads(out.splitlines()[-1]))

    def kill(self) -> None:
        """Kill it outright."""
        assert self.process is not None
        self.process.kill()
        self.process.communicate()
        self.process = None

    def room(self, **settings: Any) -> RoomEngineSpec:
        """Return what a room's config says of its engine."""
        return RoomEngineSpec(
            **{"remote": self.url, "token_file": self.token_file, "ca_file": self.certificate} | settings
        )


def gone(processes: list[psutil.Process], seconds: float) -> list[str]:
    """Wait until processes have ended, and return the names of those that have not."""
    deadline = time.monotonic() + seconds
    while (left := [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.2)
    return [" ".join(p.cmdline())[:80] for p in left]


def end(processes: list[psutil.Process]) -> None:
    """Kill what is left."""
    for process in processes:
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def features_of(models: Models, count: int, seed: int) -> list[Features]:
    """Return windows with captions of several lengths, some without z, one without s."""
    rng = np.random.default_rng(seed)
    units = models.shallow.tokens * models.shallow.width

    def numbers(*shape: int) -> np.ndarray[Any, Any]:
        return rng.normal(0, 1, shape).astype(np.float32)

    side = models.image_size
    grey = np.linspace(0, 255, side, dtype=np.uint8)
    shown = np.stack([np.broadcast_to(np.roll(grey, 3 * i)[:, None, None], (side, side, 3)) for i in range(count)])
    structure = models.structure(shown, (1, 2, 3))

    def target(i: int, block: int) -> LayerTarget:
        mask = rng.random(units) < 0.25
        return LayerTarget(np.where(mask, structure[block][i], 0).astype(np.float32), mask)

    return [
        Features(
            f"{i}-w",
            numbers(1 + i % models.tokens, models.context_dim) * 0.1,
            None if i % 3 == 0 else numbers(*models.latent_shape),
            {} if i % 5 == 4 else {block: target(i, block) for block in (1, 2, 3)},
            confidence=0.5,
            structure_latent=numbers(*models.latent_shape) if i % 2 else None,
        )
        for i in range(count)
    ]
