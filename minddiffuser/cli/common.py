"""What the commands share: options, the checks before the work, how work is stopped, and how it is answered."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import threading
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from minddiffuser.cli.output import say
from minddiffuser.errors import AppError
from minddiffuser.stopping import stopping
from stream.atomic import check_folder, write_whole, write_with_fallback
from stream.system import can_listen, loop_factory

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minddiffuser.config.spec import Config
    from stream.mqtt.broker import BrokerSpec
    from stream.types.source_spec import StreamSelector

T = TypeVar("T")

LOST = 3
"""Exit code of a command that is done, but something was lost and it was asked to mind."""
STDOUT = Path("stdout")

ConfigFile = Annotated[Path, typer.Argument(help="YAML file, such as configs/demo.yaml, which is shipped")]
DataDir = Annotated[
    Path | None, typer.Option("--data", envvar="MINDDIFFUSER_DATA", help="Folder of recorded data sets")
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON on stdout")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr")]

Jobs = Annotated[int, typer.Option(min=1, help="Fits at a time, each in a process of its own")]
Cluster = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Fit on the Ray cluster at this address; auto: on this machine's")
]


def config_at(path: Path) -> Config:
    """Read a config before anything slower is loaded than that takes.

    Raises
    ------
    minddiffuser.errors.ConfigError
        In one line: the file, the line, the key and the way out.
    """
    from minddiffuser.config.yamlfile import read_yaml

    read_yaml(path)  # what is no YAML file is told before the schema is loaded
    from minddiffuser.config.spec import load_config

    return load_config(path)


def check_bundle(folder: Path) -> None:
    """Check that there is a bundle in a folder, before what reads it is loaded.

    Raises
    ------
    AppError
        There is none.
    """
    for file in (folder / "bundle.json", folder / "weights.safetensors"):
        try:
            with file.open("rb"):
                pass
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise AppError(f"no bundle at {folder} ({reason}: {file}); train one first") from None


def check_new_bundle(folder: Path) -> None:
    """Check that a bundle can be written to a folder, in the place of an older one or of nothing.

    Raises
    ------
    AppError, stream.errors.OutputError
        It cannot, or the folder holds something else.
    """
    check_folder(folder)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "bundle.json").is_file():
        raise AppError(f"{folder}: holds something else than a bundle; name a folder that is new or empty")


def check_data(folder: Path | None) -> None:
    """Check that the folder of recorded data sets is one, if it was named.

    Raises
    ------
    AppError
        It is not.
    """
    if folder is not None and not folder.is_dir():
        raise AppError(f"--data {folder}: no such folder")


def check_port(host: str, port: int) -> None:
    """Check that a page can be served where it is to be.

    Raises
    ------
    AppError
        The port is taken, or the address is none of this machine's.
    """
    if not can_listen(host, port):
        raise AppError(f"{host}:{port}, where the page is to be, is taken; choose another --port (0: any free one)")


def run(work: Callable[[asyncio.Event], Coroutine[Any, Any, T]]) -> T:
    """Run `work` with an event that a request to end sets; until it waits for the first time, it is interrupted."""
    stopping.interrupt()

    async def watched() -> T:
        stop, loop = asyncio.Event(), asyncio.get_running_loop()

        def react() -> None:
            loop.call_soon_threadsafe(stop.set)

        loop.call_soon(stopping.notify, react)
        return await work(stop)

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(watched())
    finally:
        stopping.finish()  # the answer is still to be said


def stop_event() -> threading.Event:
    """Return an event that a request to end sets from now on."""
    stop = threading.Event()
    stopping.notify(stop.set)
    return stop


def seconds_of(text: str | None) -> float | None:
    """Read a time to wait: seconds, or 'forever'.

    Raises
    ------
    AppError
        It is neither.
    """
    if text is None:
        return None
    if text.strip().lower() == "forever":
        return math.inf
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise AppError(f"--wait {text}: wanted seconds, such as 60, or forever")
    return seconds


def session_at(broker: str | None, session: str | None) -> tuple[BrokerSpec, str]:
    """Return the broker and session that are meant: those named, else those that run on this machine.

    Raises
    ------
    AppError
        Several run here and none is named; lists them. Or `broker` cannot be read.
    """
    if broker is not None:
        return broker_at(broker), session or "+"
    from minddiffuser.display.running import find_session

    if found := find_session(session):
        address, which = found
        sys.stderr.write(f"Session {'(all)' if which == '+' else which} at {address.address}\n")
        return address, which
    which = f"session {session!r}" if session not in {None, "+"} else "session"
    sys.stderr.write(f"No {which} runs on this machine; looking for one at 127.0.0.1:1883 (--broker names another)\n")
    return broker_at("127.0.0.1:1883"), session or "+"


def selector(text: str) -> StreamSelector:
    """Read a selector from a command line: a name, or 'type=EEG,source_id=x' (other keys are metadata paths).

    Raises
    ------
    SourceError
        A part has no '='.
    """
    from stream.errors import SourceError
    from stream.types.source_spec import StreamSelector

    if "=" not in text:
        return StreamSelector(name=text)
    pairs = [part.partition("=")[::2] for part in text.split(",")]
    if not all(key and value for key, value in pairs):
        raise SourceError(f"stream {text!r}: wanted a name, or key=value pairs such as type=EEG,source_id=amp1")
    known = {key: value for key, value in pairs if key in {"name", "type", "source_id"}}
    return StreamSelector(**known, properties={key: value for key, value in pairs if key not in known})


def broker_at(text: str) -> BrokerSpec:
    """Read HOST:PORT, or a broker section written as JSON.

    Raises
    ------
    AppError
        It is neither.
    """
    from pydantic import ValidationError

    from minddiffuser.config.explain import explain
    from stream.mqtt.broker import BrokerSpec

    shown = text if len(text) < 200 else text[:200] + " ..."
    raw: Any = None
    try:
        if text.lstrip().startswith("{"):
            raw = json.loads(text)
        else:
            host, port = _host_and_port(text)
            raw = {"host": host, "port": port}
        return BrokerSpec.model_validate(raw)
    except ValidationError as error:
        raise AppError(f"--broker {shown!r}: {explain(error, BrokerSpec, raw)}; wanted HOST:PORT") from None
    except (ValueError, RecursionError) as error:
        raise AppError(f"--broker {shown!r}: {error}; wanted HOST:PORT, or a broker section as JSON") from None


def _host_and_port(text: str) -> tuple[str, str | None]:
    if "://" in text:
        raise ValueError("no scheme goes before it")
    if text.startswith("["):  # an IPv6 address
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        host, _, port = text.rpartition(":") if text.count(":") == 1 else (text, "", "")
    if not host.strip():
        raise ValueError("no host is named")
    return host, port or None


def answer(
    found: dict[str, Any],
    *,
    as_json: bool,
    show: Callable[[dict[str, Any]], Iterable[RenderableType]] | None = None,
) -> None:
    """Print an answer; where stdout takes it no more, it is kept in the temporary folder.

    Parameters
    ----------
    found : dict
    as_json : bool
        Print it as it is.
    show : callable, optional
        Gives what people get in place of JSON; left out, a line for each entry.

    Raises
    ------
    stream.errors.OutputError
        It could not be printed; says where it is.
    """
    stopping.finish()
    if as_json:
        text = json.dumps(found)
    elif show is None:
        text = "\n".join(f"{name}: {value}" for name, value in found.items())
    else:
        from minddiffuser.report.tables import text_of

        text = text_of(show(found))

    def write(path: Path) -> None:
        if path is not STDOUT:
            write_whole(path, text + "\n")
            return
        try:
            say(text)
        except BrokenPipeError:  # as of `| head`: who reads it has had enough
            sys.exit(1)

    write_with_fallback(STDOUT, write)
