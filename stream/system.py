"""What differs between Linux, macOS and Windows, in one place; nothing heavy is imported here."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

POSIX = os.name == "posix"
WINDOWS = sys.platform == "win32"

HANG_UP: int | None = getattr(signal, "SIGHUP", None)
"""Sent where a terminal is closed; Windows has none."""


def stop_signals() -> tuple[int, ...]:
    """Return the signals that ask a program to end: Ctrl-C, SIGTERM, a hang-up, Ctrl-Break."""
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    return tuple(getattr(signal, name) for name in names if hasattr(signal, name))


def ask_self_to_end() -> None:
    """Ask this process to end, as SIGTERM from outside does; from any thread."""
    if POSIX:
        os.kill(os.getpid(), signal.SIGTERM)
    else:  # os.kill would end it at once
        import _thread

        _thread.interrupt_main(signal.SIGTERM)


def own_group() -> dict[str, Any]:
    """Return the arguments of Popen for a process that Ctrl-C in our terminal does not reach."""
    if POSIX:
        return {"start_new_session": True}
    return {"creationflags": 0x200}  # subprocess.CREATE_NEW_PROCESS_GROUP, which is there on Windows only


def interrupt(process: subprocess.Popen[Any]) -> None:
    """Ask a process in a group of its own to end, as Ctrl-C does."""
    process.send_signal(signal.SIGINT if POSIX else signal.CTRL_BREAK_EVENT)  # type: ignore[attr-defined,unused-ignore]


def ask_to_end(process: subprocess.Popen[Any]) -> None:
    """Ask a process in a group of its own to end: SIGTERM, and Ctrl-Break on Windows, whose `terminate` kills."""
    if POSIX:
        process.terminate()
    else:
        interrupt(process)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes an event loop that MQTT clients can use; None where the default one is.

    They watch sockets, which the default loop of Windows cannot.
    """
    if not WINDOWS:
        return None
    import asyncio

    return asyncio.SelectorEventLoop


def can_listen(host: str, port: int) -> bool:
    """Check whether a port is free to listen on; 0 is any free one."""
    import socket

    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            if POSIX:  # elsewhere this would take over a port that is in use
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError:
        return False
    return True


def user_id() -> int | None:
    """Return the number of the user who runs this process; None where users have none."""
    return os.getuid() if hasattr(os, "getuid") else None


def peak_memory() -> int:
    """Return the most bytes that this process has taken since it began; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def sync(path: Path) -> None:
    """Have the disk keep a file, or the entries of a folder; not every system can for folders."""
    folder = path.is_dir()
    if folder and not POSIX:  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if POSIX else os.O_RDWR)  # Windows syncs only what may be written
    try:
        os.fsync(descriptor)
    except OSError:
        if not folder:
            raise
    finally:
        os.close(descriptor)
