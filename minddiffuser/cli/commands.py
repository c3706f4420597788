"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from decoder.errors import DecoderError
from engine.errors import EngineError
from minddiffuser.cli import decoding, engine, experiment, session, streams
from minddiffuser.cli.inspect import inspect
from minddiffuser.cli.new import new
from minddiffuser.cli.output import say
from minddiffuser.errors import AppError
from stream.errors import StreamError

ERRORS = (AppError, DecoderError, EngineError, StreamError, OSError, ModuleNotFoundError, MemoryError)
"""What is told in one line: our own errors, and what the machine lacks."""

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},  # of every command below it
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Shows, a moment later, the picture a person is looking at, from brain data streamed over LSL.",
)
for command in (
    session.demo,
    session.live,
    new,
    inspect,
    streams.replay,
    streams.record,
    streams.simulate,
    streams.markers,
    streams.export,
    experiment.present,
    experiment.calibrate,
    session.display,
    session.subscribe,
    engine.pool,
    decoding.train,
    decoding.evaluate,
    decoding.maps,
    decoding.doctor,
):
    app.command()(command)
app.add_typer(engine.engine_app, name="engine")


def _say_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        say(f"minddiffuser {version('minddiffuser')}")
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Print the version and end")
    ] = False,
) -> None:
    """Accept the options that belong to no command."""
