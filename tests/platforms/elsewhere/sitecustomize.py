"""Python without what POSIX systems alone have; `test_platforms` puts this folder on the path of subprocesses."""

import builtins
import os
import signal
from asyncio import base_events, unix_events
from typing import Any

MODULES = ("fcntl", "grp", "pty", "pwd", "resource", "syslog", "termios", "tty")
OURS = ("stream", "decoder", "engine", "minddiffuser")
FUNCTIONS = (
    *("chown", "fork", "forkpty", "getegid", "geteuid", "getgid", "getpgid", "getpgrp", "getuid", "killpg", "mkfifo"),
    *("nice", "openpty", "setpgid", "setsid", "setuid"),
)
SIGNALS = ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGPIPE", "SIGQUIT", "SIGUSR1", "SIGUSR2")


def missing(*_: object, **__: object) -> None:
    """Do what event loops of Windows do when asked for signals or subprocesses."""
    raise NotImplementedError


def importing(name: str, globals: Any = None, *rest: Any, **named: Any) -> Any:  # noqa: A002  its name
    """Import a module, but none of `MODULES` for our packages: others choose them by the system's name."""
    importer = str((globals or {}).get("__name__", "")).partition(".")[0]
    if name in MODULES and importer in OURS:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return own_import(name, globals, *rest, **named)


own_import = builtins.__import__
builtins.__import__ = importing
for names, place in ((FUNCTIONS, os), (SIGNALS, signal)):
    for name in names:
        if hasattr(place, name):
            delattr(place, name)
unix_events._UnixSelectorEventLoop.add_signal_handler = missing
base_events.BaseEventLoop.subprocess_exec = missing
