"""Ray, started here or joined, for as long as a block runs; the one module that calls `ray.init`."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from minddiffuser.errors import AppError

for _name, _value in (
    ("RAY_USAGE_STATS_ENABLED", "0"),
    ("RAY_AUTH_MODE", "token"),
    ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1"),  # a replica without a share of a GPU sees none
    ("RAY_worker_niceness", "0"),  # pictures are awaited; Ray's 15 lets everything else on the machine go first
):
    os.environ.setdefault(_name, _value)  # Ray reads them as it is imported

import ray  # noqa: E402
from ray.exceptions import RayError  # noqa: E402

STORE_BYTES = 512 * 2**20
"""Memory that Ray may share among its processes here: windows and pictures on their way."""


@contextmanager
def started(address: str | None) -> Iterator[None]:
    """Start Ray on this machine, or join the cluster at an address, while the block runs.

    Raises
    ------
    AppError
        There is no cluster, or Ray cannot start.
    """
    here: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE_BYTES} if address is None else {}
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).setLevel(logging.ERROR)  # that SIGTERM is not Ray's, and what Serve starts
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address or "local", log_to_driver=False, configure_logging=False, **here)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        where = f"cannot join the Ray cluster at {address}" if address else "cannot start Ray"
        raise AppError(f"{where}: {' '.join(str(error).split())[:300]}") from None
    try:
        yield
    finally:
        ray.shutdown()
