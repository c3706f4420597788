"""The code runs where what POSIX systems alone have is missing, as on Windows."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Cli

ELSEWHERE = Path(__file__).with_name("elsewhere")
PACKAGES = ("stream", "decoder", "engine", "minddiffuser")
ONE_PLACE = ROOT / "stream" / "system.py"
IMPORT_ALL = """
import importlib, pkgutil, signal, sys
assert not hasattr(signal, "SIGHUP")
for package in sys.argv[1:]:
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
print("imported")
"""
POSIX_ONLY = {
    *("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty", "uvloop"),
    *("os.fork", "os.getuid", "os.geteuid", "os.killpg", "os.getpgid", "os.setsid", "os.nice", "os.statvfs"),
    *("os.uname", "os.sched_getaffinity", "os.O_DIRECTORY", "signal.SIGHUP", "signal.SIGKILL", "signal.SIGALRM"),
    *("signal.SIGUSR1", "signal.SIGUSR2", "signal.alarm", "signal.pthread_kill", "signal.CTRL_BREAK_EVENT"),
}
METHODS = {"add_signal_handler", "create_subprocess_exec", "create_subprocess_shell", "start_unix_server"}
"""Of asyncio: not there on the event loop of Windows that MQTT clients need."""


def used(path: Path) -> set[str]:
    """Return the POSIX-only names that a file uses."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Attribute):
            names |= {ast.unparse(node), node.attr} if node.attr in METHODS else {ast.unparse(node)}
    return names & (POSIX_ONLY | METHODS)


def test_what_differs_between_systems_is_in_one_module() -> None:
    """Only `stream.system` uses what POSIX systems, or Windows, alone have; and this test sees it there."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = {str(path.relative_to(ROOT)): names for path in files if (names := used(path))}
    assert set(found) == {str(ONE_PLACE.relative_to(ROOT))}, found


@pytest.fixture
def elsewhere(cli: Cli) -> dict[str, str]:
    """Return the environment of a Python without those."""
    path = os.pathsep.join((str(ELSEWHERE), str(ROOT)))
    return cli.environment | {"PYTHONPATH": path, "USERNAME": "somebody"}  # as Windows sets it


def test_every_module_is_imported(elsewhere: dict[str, str]) -> None:
    """Imports need nothing that Windows lacks."""
    command = [sys.executable, "-c", IMPORT_ALL, *PACKAGES]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, env=elsewhere, cwd=ROOT, check=False)
    assert (run.returncode, run.stdout) == (0, "imported\n"), run.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_main_path_runs(elsewhere: dict[str, str], tmp_path: Path) -> None:
    """The demo streams, decodes, reconstructs, publishes and receives: everything but another system's own code."""
    command = [sys.executable, "-m", "minddiffuser", "demo", "--headless", "--seconds", "3"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=540, env=elsewhere, cwd=tmp_path, check=False)
    assert run.returncode == 0, run.stderr
    assert "0 lost" in run.stderr
    assert " 0 pictures published" not in run.stderr
