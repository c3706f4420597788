"""The commands, put together."""

from __future__ import annotations

import typer

from decoder.errors import DecoderError
from engine.errors import EngineError
from minddiffuser.cli import decoding, engine, session, streams
from minddiffuser.cli.inspect import inspect
from minddiffuser.errors import AppError
from stream.errors import StreamError

ERRORS = (AppError, DecoderError, EngineError, StreamError, OSError, ModuleNotFoundError, MemoryError)
"""What is told in one line: our own errors, and what the machine lacks."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Shows, a moment later, the picture a person is looking at, from brain data streamed over LSL.",
)
for command in (
    session.demo,
    session.live,
    inspect,
    streams.replay,
    streams.record,
    session.display,
    session.subscribe,
    decoding.train,
    decoding.evaluate,
    decoding.maps,
    decoding.doctor,
):
    app.command()(command)
app.add_typer(engine.engine_app, name="engine")
