"""The command line; nothing heavy is imported before a command needs it.

Exit codes: 0 done (also when stopped with Ctrl-C, SIGTERM or a hang-up), 1 something is wrong, in one line on stderr,
2 wrong usage, 3 done but something was lost and the command was asked to mind, 130 stopped before it was done.
"""

import io
import os
import sys
from contextlib import suppress
from typing import NoReturn

from minddiffuser.cli.output import say
from minddiffuser.stopping import STOPPED, TIED, end_with_parent, stopping


def main() -> None:
    """Run the command line; every error of ours is one line and exit code 1."""
    stopping.listen()
    _open_what_is_closed()
    if TIED in os.environ:
        end_with_parent()
    # Idle OpenMP threads spin by default; beside replay, broker and page that multiplies the latency on few cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold what a terminal cannot show
    from minddiffuser.cli.commands import ERRORS, app

    try:
        try:
            app()
        except SystemExit:
            stopping.finish()
            say()
            raise
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except ERRORS as error:
        _fail(error)
    except Exception:
        if stopping.asked:  # an import that is interrupted ends in errors of many kinds
            sys.exit(STOPPED)
        raise


def _open_what_is_closed() -> None:
    """Open stdin, stdout and stderr where whoever started us closed them: the next file would take their place."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            setattr(sys, name, open(descriptor, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: PTH123, SIM115  no path; to the end


def _fail(error: Exception) -> NoReturn:
    """Print in one line what is wrong, and exit."""
    text = str(error)
    if isinstance(error, ModuleNotFoundError):
        text = f"the package {error.name!r} is not installed; `minddiffuser doctor` says what is needed"
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    elif isinstance(error, MemoryError):
        text = f"not enough memory ({text})" if text else "not enough memory"
    with suppress(OSError):  # nobody is there to read it
        sys.stderr.write(f"minddiffuser: {' '.join(text.split())}\n")
        sys.stderr.flush()
    sys.exit(1)
