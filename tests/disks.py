"""Disks that are full, and folders that cannot be written."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """Return a folder in which nothing can be written, whoever we are."""
    folder.mkdir(parents=True)
    if os.geteuid():
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    with _mounted(folder, "ro"):
        yield folder


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """Return a disk of a few kilobytes."""
    folder.mkdir(parents=True)
    with _mounted(folder, f"size={kilobytes}k"):
        yield folder


@contextmanager
def _mounted(folder: Path, options: str) -> Iterator[None]:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a disk of one's own takes the right to mount one")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
