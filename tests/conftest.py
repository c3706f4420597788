"""The command line, run as a user would."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Cli:
    """Runs the command line as a user would, with a cache of its own."""

    environment: dict[str, str]

    def __call__(self, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Run to the end and return exit code and output."""
        command = [sys.executable, "-m", "minddiffuser", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=self.environment, cwd=ROOT, check=False
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start and return at once."""
        command = [sys.executable, "-m", "minddiffuser", *arguments]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment, cwd=ROOT
        )


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """Give the command line with an empty cache."""
    return Cli(os.environ | {"MINDDIFFUSER_CACHE": str(tmp_path_factory.mktemp("cache"))})
