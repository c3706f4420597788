"""What a benchmark ran on."""

import os
import platform
from pathlib import Path


def machine() -> dict[str, str | int | None]:
    """Name the system, its processor and the number of its cores."""
    return {"system": platform.platform(), "cpu": _cpu(), "cores": os.cpu_count()}


def _cpu() -> str:
    file = Path("/proc/cpuinfo")  # Linux
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown")
