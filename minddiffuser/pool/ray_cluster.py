"""Ray, as a pool uses it: started here or joined, replicas on Serve, and windows handed to them."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from engine.spec import EngineSpec
from minddiffuser.config.engine import PoolSpec
from minddiffuser.errors import AppError
from minddiffuser.pool.account import PoolAccount
from minddiffuser.pool.ray_session import started
from minddiffuser.pool.replica import LocalEngine, Make, Part, Replica
from minddiffuser.remote.protocol import About, Failure

logger = logging.getLogger(__name__)

NAME = "minddiffuser"
OWN_ERROR = re.compile(r"^(?:engine|minddiffuser|decoder)\.[\w.]+: ")
"""What a traceback puts before one of our own lines."""
ON_A_GPU = 8
"""Windows made together on a GPU, where the config does not say."""
SCALING = {"upscale_delay_s": 5, "downscale_delay_s": 120, "metrics_interval_s": 2, "look_back_period_s": 6}
"""Windows that wait for 5 s start an engine; two minutes that could do with fewer, longer than the pauses of an
experiment, end one."""


def batch_of(spec: PoolSpec) -> int:
    """Return how many windows are made together at most."""
    return spec.batch or (ON_A_GPU if spec.gpus else 1)


def slots_of(spec: PoolSpec) -> int:
    """Return how many windows may be with the replicas at once: a batch in work and the next one, for each."""
    return 2 * batch_of(spec) * (spec.max_replicas or spec.replicas)


def cpus_of(spec: PoolSpec, cores: float | None) -> float:
    """Return the cores that each replica has: of this machine's, or 1 where those of a cluster are to be had (None)."""
    if spec.cpus is not None:
        return spec.cpus
    return float(max(1, int(cores or 1) // (spec.max_replicas or spec.replicas)))


@contextmanager
def ray_started(spec: PoolSpec, address: str | None) -> Iterator[PoolSpec]:
    """Start Ray on this machine, or join the cluster at an address, while the block runs; give `spec` with its `cpus`.

    Raises
    ------
    AppError
        There is no cluster, or it has fewer cores or GPUs than the replicas are to have.
    """
    with started(address):
        there = ray.cluster_resources()
        spec = spec.model_copy(update={"cpus": cpus_of(spec, None if address else there.get("CPU", 1.0))})
        _check_room(spec, there, address)
        try:
            yield spec
        finally:
            if address is not None and ray.is_initialized():  # the cluster stays, and so would the replicas
                with contextlib.suppress(RayError, RayServeException):
                    serve.delete(NAME)


def end_ray() -> None:
    """Leave the cluster, which ends with it if it was started here."""
    ray.shutdown()


def _check_room(spec: PoolSpec, there: dict[str, float], address: str | None) -> None:
    for key, share, word in (("CPU", spec.cpus or 0.0, "cpus"), ("GPU", spec.gpus, "gpus")):
        if share * spec.replicas > there.get(key, 0.0):
            where = f"the cluster at {address}" if address else "this machine"
            raise AppError(
                f"pool: {spec.replicas} replicas with {word}: {share:g} each want {share * spec.replicas:g} {key}s, "
                f"and {where} has {there.get(key, 0.0):g}; set pool.replicas or pool.{word}"
            )


class Replicas:
    """The replicas of a pool; called with a request's body, it has the pictures made.

    Parameters
    ----------
    spec : PoolSpec
        As `ray_started` gives it.
    engine : EngineSpec
    account : PoolAccount
        Counts windows that are sent once more.
    make : callable
        Makes a replica's engine.

    Raises
    ------
    AppError
        The engines cannot be made, with the reason of one.
    """

    def __init__(self, spec: PoolSpec, engine: EngineSpec, account: PoolAccount, make: Make = LocalEngine) -> None:
        self._account, batch = account, batch_of(spec)
        threads = engine.threads or max(1, int(spec.cpus or 1))
        about = {
            "version": version("minddiffuser"),
            "replicas": spec.replicas,
            "body_bytes": int(spec.body_mb * 1e6),
        }
        deployment = serve.deployment(
            Replica,
            name="engine",
            ray_actor_options={"num_cpus": spec.cpus, "num_gpus": spec.gpus},
            max_ongoing_requests=2 * batch,
            health_check_period_s=2,
            health_check_timeout_s=30,
            graceful_shutdown_timeout_s=5,
            max_constructor_retry_count=1,
            **_how_many(spec, batch),
        )
        serve.start(http_options={"location": "NoServer"}, logging_config={"log_level": "WARNING"})
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        app = deployment.bind(engine.model_copy(update={"threads": threads}), batch, about, make)
        try:
            handle = serve.run(app, name=NAME, route_prefix=None)
            self.about = About.model_validate(handle.about.remote().result(timeout_s=60))
        except (RuntimeError, RayError, RayServeException) as error:
            raise AppError(f"the pool's engines cannot be made: {_reason(_told() or str(error))}") from None
        self._handle = handle.options(stream=True)

    async def __call__(self, body: bytes) -> AsyncGenerator[Part, None]:
        """Yield the parts of a window's answer; where its replica dies, it is given to another one, once."""
        sent: set[str] = set()
        for again in (False, True):
            try:
                async for part in self._handle.remote(body):
                    if (kind := part[0]["kind"]) not in sent:
                        sent.add(kind)
                        yield part
                return
            except RayTaskError as error:  # the engine's own
                yield _failure(_reason(str(error)))
                return
            except (RayError, RayServeException) as error:
                if again:
                    yield _failure(f"two replicas died one after the other: {type(error).__name__}")
                    return
                logger.warning("a replica died (%s); its window is given to another one", type(error).__name__)
                self._account.resent += 1


def _how_many(spec: PoolSpec, batch: int) -> dict[str, Any]:
    if spec.max_replicas is None or spec.max_replicas == spec.replicas:
        return {"num_replicas": spec.replicas}
    bounds = {"min_replicas": spec.replicas, "max_replicas": spec.max_replicas, "target_ongoing_requests": batch}
    return {"autoscaling_config": bounds | SCALING}


def _failure(reason: str) -> Part:
    return Failure(kind="failed", reason=reason).model_dump(), b""


def _told() -> str:
    """Return what Serve says of the engines, with the traceback of one that could not be made."""
    with contextlib.suppress(RayError, RayServeException):
        if (app := serve.status().applications.get(NAME)) is not None:
            return "\n".join(deployment.message for deployment in app.deployments.values())
    return ""


def _reason(text: str) -> str:
    """Return the line of a traceback that says what went wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line.split(":")[0] and not line.startswith(("File ", "ray."))]
    return OWN_ERROR.sub("", (errors or lines or ["no reason is known"])[-1])[:300]
