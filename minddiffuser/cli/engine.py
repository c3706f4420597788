"""`minddiffuser engine`: export networks, build what a backend needs, time it; `minddiffuser pool` shares it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minddiffuser.cli.common import ConfigFile as PoolConfig
from minddiffuser.cli.common import Json, Verbose, answer, config_at, run
from minddiffuser.cli.output import say
from minddiffuser.errors import AppError
from minddiffuser.stopping import stopping

if TYPE_CHECKING:
    from engine.backends.cache import EngineCache
    from engine.spec import EngineSpec
    from engine.timing import EngineTimings
    from engine.verify import Verification
    from minddiffuser.remote.protocol import About

engine_app = typer.Typer(no_args_is_help=True, help="Export networks, build what a backend needs, time it.")

ConfigFile = Annotated[Path | None, typer.Argument(help="YAML file whose engine is meant; without one the desk models")]
Repeats = Annotated[int, typer.Option(min=3, max=10_000, help="Calls that count, after two that do not")]
BackendOption = Annotated[str | None, typer.Option("--backend", help="Instead of the config's engine.backend")]


@engine_app.command("export")
def export_networks(config_file: ConfigFile = None, as_json: Json = False, verbose: Verbose = False) -> None:
    """Write UNet and decoder as ONNX files to the cache, and hold them against torch."""
    spec = _ready(config_file, None)
    from minddiffuser.console import progress, set_up_logging

    set_up_logging(verbose)
    from engine.backends.choice import export_parts
    from engine.models.loading import load_models

    stopping.interrupt()
    began = time.monotonic()
    cache = _cache()
    with progress() as report:
        checked = export_parts(load_models(spec.models, spec.device), cache, report)
    _say({"checked_with": checked, **_made(cache, began)}, as_json)


@engine_app.command()
def build(
    config_file: ConfigFile = None, backend: BackendOption = None, as_json: Json = False, verbose: Verbose = False
) -> None:
    """Build everything that the engine needs to start at once: exports, engines, compiled kernels."""
    spec = _ready(config_file, backend)
    from minddiffuser.console import progress, set_up_logging

    set_up_logging(verbose)
    from engine.backends.choice import make_backend
    from engine.models.loading import load_models
    from engine.reconstructor import Reconstructor

    stopping.interrupt()
    began = time.monotonic()
    cache = _cache()
    with progress() as report:
        models = load_models(spec.models, spec.device)
        choice = make_backend(spec.backend, models, cache, build=True, report=report)
        name, left = choice.backend.name, choice.left
        del choice  # its networks would be in memory twice
        report(f"warming up {name}", 0, 1)
        Reconstructor(spec.model_copy(update={"backend": name}), models, cache.folder).warm_up()
        report(f"warming up {name}", 1, 1)
    _say({"backend": name, "left": left, **_made(cache, began)}, as_json)


@engine_app.command()
def bench(
    config_file: ConfigFile = None,
    backend: BackendOption = None,
    repeats: Repeats = 20,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Time the networks in each backend, the preview and the picture."""
    spec = _ready(config_file, backend)
    from minddiffuser.console import progress, set_up_logging

    set_up_logging(verbose)
    from engine.timing import time_engine

    stopping.interrupt()
    with progress() as report:
        found = time_engine(spec, _cache().folder, repeats=repeats, report=report)
    if as_json:
        answer(asdict(found), as_json=True)
    else:
        say("\n".join(_table(found)))


@engine_app.command()
def verify(
    config_file: ConfigFile = None,
    backend: BackendOption = None,
    repeats: Repeats = 20,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Build, prove against torch and time every backend; exit code 1 where one that runs here is wrong."""
    spec = _ready(config_file, backend)
    from minddiffuser.console import progress, set_up_logging

    set_up_logging(verbose)
    from engine.verify import verify_engine

    stopping.interrupt()
    with progress() as report:
        names = () if backend in {None, "auto"} else (str(backend),)
        result = verify_engine(spec, _cache(), repeats=repeats, names=names, report=report)
    if as_json:
        answer(asdict(result), as_json=True)
    else:
        say("\n".join(_verified(result)))
    if result.faults:
        raise typer.Exit(1)


def _verified(result: Verification) -> list[str]:
    """Lines for a person."""
    columns = ("unet b1", "unet b8", "decoder b1", "preview", "picture")
    lines = [f"{'':<16}{'proof':<10}{'start s':>9}" + "".join(f"{column:>12}" for column in columns)]
    for name, one in result.backends.items():
        if one.networks is None or one.preview is None or one.picture is None:
            lines.append(f"{name:<16}{one.unavailable or (one.proof.fault if one.proof else '')}")
            continue
        timings = [*(one.networks[column] for column in columns[:3]), one.preview, one.picture]
        state = "reference" if one.proof is None else "agrees"
        times = "".join(f"{timing.p50:>12.1f}" for timing in timings)
        lines.append(f"{name:<16}{state:<10}{one.start_s:>9.1f}{times}")
    if result.gradient_step is not None:
        lines.append(f"gradient step of stage 2: {result.gradient_step.p50:.1f} ms")
    versions = ", ".join(f"{package} {version}" for package, version in result.versions.items())
    lines += [f"{result.device}, {result.dtype}, {result.threads} threads, latent {result.latent_shape}", versions]
    lines.append("times are medians in ms of one call; attach the answer of --json to a report")
    return lines


def _ready(config_file: Path | None, backend: str | None) -> EngineSpec:
    """Return the engine section of a config, with another backend where one is named; the cache can be written."""
    from engine.spec import BACKEND_NAMES, EngineSpec
    from minddiffuser.cache import check_cache

    spec = config_at(config_file).engine if config_file else EngineSpec()
    check_cache()
    if backend is None:
        return spec
    if backend not in BACKEND_NAMES:
        raise AppError(f"backend {backend!r} is unknown; known are {', '.join(BACKEND_NAMES)}")
    return spec.model_copy(update={"backend": backend})


def _cache() -> EngineCache:
    from engine.backends.cache import EngineCache
    from minddiffuser.cache import cache_dir

    return EngineCache(cache_dir() / "engines")


def _made(cache: EngineCache, began: float) -> dict[str, Any]:
    """Where the files are, how large, which were made now, and how long it took."""
    entries = [
        {
            "folder": str(folder),
            "bytes": sum(file.stat().st_size for file in folder.iterdir()),
            "made_now": fresh,
            **{name: value for name, value in cache.key_of(folder).items() if name in {"kind", "part", "opset"}},
        }
        for folder, fresh in cache.given.items()
        if "part" in cache.key_of(folder)  # a network, not a proof
    ]
    return {"entries": entries, "seconds": round(time.monotonic() - began, 1)}


def _say(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        answer(found, as_json=True)
        return
    for entry in found.pop("entries"):
        state = "made" if entry["made_now"] else "was there"
        say(
            f"{entry['kind']} {entry['part']} (opset {entry['opset']}): {state}, {entry['bytes'] / 1e6:.1f} MB, "
            f"{entry['folder']}"
        )
    for name, reason in found.pop("left", {}).items():
        say(f"left {name}: {reason}")
    for name, value in found.items():
        say(f"{name}: {'nothing here could run them' if value is None else value}")


def _table(found: EngineTimings) -> list[str]:
    """Lines for a person."""
    lines = [f"{'':<24}{'p50 ms':>10}{'p99 ms':>10}"]
    rows = {f"{part}, {name}": timing for name, parts in found.networks.items() for part, timing in parts.items()} | {
        "preview": found.preview,
        "picture": found.picture,
    }
    lines += [f"{name:<24}{timing.p50:>10.1f}{timing.p99:>10.1f}" for name, timing in rows.items()]
    lines.append(f"preview and picture with {found.backend}, {found.picture.repeats} repeats")
    lines += [f"auto left {name}: {reason}" for name, reason in found.left.items()]
    lines += [f"not timed {name}: {reason}" for name, reason in found.skipped.items() if name not in found.left]
    return lines


def pool(
    config_file: PoolConfig,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join, HOST:PORT; else Ray starts here")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Instead of pool.port; 0: any free one")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make pictures for many rooms: a config's engine, as often as its `pool` says, on Ray Serve.

    Rooms name it in their config: `engine: {remote: http://HOST:PORT}`. Needs the extra `pool`.
    """
    config = config_at(config_file)
    if port is not None:
        config = config.model_copy(update={"pool": config.pool.model_copy(update={"port": port})})
    from minddiffuser.cache import check_cache
    from minddiffuser.console import console, set_up_logging

    check_cache()
    set_up_logging(verbose)
    try:
        from minddiffuser.pool.run import run_pool
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in {"ray", "prometheus_client"}:
            raise
        raise AppError("a pool runs on Ray, which is not installed: pip install 'minddiffuser[pool]'") from None

    waiting = console.status("starting Ray and the engines")

    def ready(url: str, about: About) -> None:
        waiting.stop()
        if as_json:
            say(json.dumps({"ready": True, "url": url, **about.model_dump()}))
        else:
            engines = f"{about.replicas} {'engine' if about.replicas == 1 else 'engines'} ({about.backend})"
            console.print(f"Pool: {url}, {engines}; Ctrl-C ends it", highlight=False)

    from minddiffuser.cli.accounts import pool as table

    with waiting:
        account = run(lambda stop: run_pool(config, stop, address=address, on_ready=ready))
    answer(account, as_json=as_json, show=table)
