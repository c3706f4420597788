"""What a config says of an engine elsewhere: a room's `engine`, and the `pool` that serves rooms."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from engine.spec import EngineSpec


def is_loopback(host: str) -> bool:
    """Return True for a host name or address that only this machine reaches."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(f"is {text!r}; wanted an address such as http://127.0.0.1:8000 or https://gpu.lab:8000")
    if parts.username or parts.password:
        raise ValueError("holds a password; write the token into a file and name it as token_file")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ValueError(
            f"is {text!r}: features and the token would go over the network in clear; use https:// (pool.certificate)"
        )
    return text.rstrip("/")


class RoomEngineSpec(EngineSpec):
    """From decoded features to pictures: here, or in a pool that several rooms share (`remote`)."""

    remote: Annotated[str, AfterValidator(_address)] | None = None
    """Address of a pool (`minddiffuser pool`), such as https://gpu.lab:8000; null: pictures are made in this process.
    The pool's config says how it makes them; of this section only `seed` is sent, with each window."""
    token_file: Path | None = None
    """File with the pool's token, readable by its owner only."""
    ca_file: Path | None = None
    """Certificate (PEM) by which the pool is known, where no public authority signed it."""
    half: bool = False
    """Send features in half precision: half the bytes, and pictures that differ by a grey level here and there."""
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Seconds after which a window whose picture has not come from the pool is counted as failed."""
    fallback: Literal["none", "local"] = "none"
    """local: load the models here too, and make pictures in this process while the pool cannot be reached."""

    @model_validator(mode="after")
    def _of_a_pool(self) -> RoomEngineSpec:
        of_pool = {"token_file", "ca_file", "half", "timeout_s", "fallback"} & self.model_fields_set
        if self.remote is None and of_pool:
            raise ValueError(f"{', '.join(sorted(of_pool))} goes with remote, the address of a pool")
        return self


class PoolSpec(BaseModel):
    """One engine, or several alike, for many rooms (`minddiffuser pool`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    replicas: int = Field(1, ge=1, le=1000)
    """Engines: each a process with the models of its own."""
    max_replicas: int | None = Field(None, ge=1, le=1000)
    """Let Ray start up to so many while windows wait, and end them again; null: always `replicas`."""
    cpus: float | None = Field(None, ge=0, le=1024)
    """Cores that Ray reserves for each, and threads that it uses where `engine.threads` is 0, one at least. Null: all
    of this machine's, shared out among the replicas; 1 on a cluster."""
    gpus: float = Field(0.0, ge=0, le=64)
    """Share of a GPU for each: 1, or 0.5 where two share one."""
    batch: int | None = Field(None, ge=1, le=8)
    """Windows made together at most; the backend is warmed up for all sizes up to it. Null: 8 on a GPU and 1 on a CPU,
    where a batch saves nothing."""
    queue: int = Field(64, ge=1, le=100_000)
    """Windows of all rooms that may wait; beyond, the pool answers at once that it is full."""
    room_queue: int = Field(4, ge=1, le=10_000)
    """Of them, those of one room."""
    host: str = "127.0.0.1"
    """Address that rooms reach; another than loopback needs `token_file`, `certificate` and `key`."""
    port: int = Field(8000, ge=0, le=65535)
    """0: any free port."""
    token_file: Path | None = None
    """File with the token that rooms must send, readable by its owner only."""
    certificate: Path | None = None
    """Certificate file (PEM) for TLS, with what signed it."""
    key: Path | None = None
    """Its private key (PEM)."""
    body_mb: float = Field(8.0, gt=0, le=1024)
    """Largest request that is read, in megabytes: one window's features."""

    @model_validator(mode="after")
    def _closed_to_strangers(self) -> PoolSpec:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        if not is_loopback(self.host) and (self.token_file is None or self.certificate is None):
            raise ValueError(
                f"host {self.host} can be reached from other machines: set token_file, certificate and key"
            )
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is less than replicas {self.replicas}")
        if self.room_queue > self.queue:
            raise ValueError(f"room_queue {self.room_queue} is more than queue {self.queue}")
        return self
