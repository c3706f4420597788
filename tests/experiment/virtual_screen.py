"""A screen without glass, and a light meter that looks at its corner.

The meter is a process of its own that knows nothing of the presenter: it reads pixels of the virtual framebuffer, which
Xvfb keeps in a file (`-fbdir`), as fast as it can, and streams what it sees over LSL as a photodiode would.

    python -m tests.experiment.virtual_screen FRAMEBUFFER NAME X Y [LATE_S]
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RATE = 1000.0
XWD_HEADER = struct.Struct(">25I")
"""The fields of an XWD file's header, of which the framebuffer is one; numbers in network order."""


@contextmanager
def virtual_screen(folder: Path, size: tuple[int, int] = (320, 240)) -> Iterator[tuple[str, Path]]:
    """Run Xvfb; yield its DISPLAY and the file of its framebuffer."""
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", f"{size[0]}x{size[1]}x24", "-fbdir", str(folder),
         "-nolisten", "tcp", "-noreset"],
        pass_fds=(write,), stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    try:
        with os.fdopen(read) as pipe:
            number = pipe.readline().strip()
        assert number, "Xvfb did not start"
        yield f":{number}", folder / "Xvfb_screen0"
    finally:
        server.terminate()
        server.wait(10)


@contextmanager
def light_meter(framebuffer: Path, name: str, at: tuple[int, int], late_s: float = 0.0) -> Iterator[None]:
    """Run the light meter; its stream is there when the block begins.

    Parameters
    ----------
    framebuffer : Path
    name : str
        Of the LSL stream.
    at : (int, int)
        The pixel, from the left and from the top.
    late_s : float
        Samples are stamped so much later than they were seen.
    """
    command = [sys.executable, "-m", "tests.experiment.virtual_screen", str(framebuffer), name, *map(str, at)]
    meter = subprocess.Popen([*command, str(late_s)], stdout=subprocess.PIPE, text=True)
    try:
        assert meter.stdout
        assert meter.stdout.readline() == "ready\n"
        yield
    finally:
        meter.terminate()
        meter.wait(10)


def main(framebuffer: str, name: str, x: str, y: str, late_s: str = "0") -> None:
    """Stream a pixel's brightness (0 to 1) at 1000 Hz until this process is ended."""
    import pylsl

    info = pylsl.StreamInfo(name, "Photodiode", 1, RATE, "float32", name)
    channel = info.desc().append_child("channels").append_child("channel")
    for key, value in (("label", "Photo"), ("type", "misc"), ("unit", "arbitrary")):
        channel.append_child_value(key, value)
    outlet = pylsl.StreamOutlet(info)
    with Path(framebuffer).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        fields = XWD_HEADER.unpack_from(memory)
        header_size, bytes_per_line, n_colours = fields[0], fields[12], fields[19]
        place = header_size + 12 * n_colours + int(y) * bytes_per_line + 4 * int(x)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        due = pylsl.local_clock()
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                due += 1 / RATE
                time.sleep(max(0.0, due - pylsl.local_clock()))
                now = pylsl.local_clock()
                outlet.push_sample([sum(memory[place : place + 3]) / (3 * 255)], now + float(late_s))
                due = max(due, now - 0.05)


if __name__ == "__main__":
    main(*sys.argv[1:])
