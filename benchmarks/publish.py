"""Pictures from the publisher to everybody who looks: loss, latency and memory of MQTT subscribers and of the page.

Everything is in a process of its own, as in reality: publisher with the embedded broker, display server
(`minddiffuser display`), each TCP subscriber (`minddiffuser subscribe`), the WebSocket clients together in one. Two
viewers shake hands and never read again. The first half of the time runs at 10 pictures a second, the second at 30.

    python -m benchmarks.publish --json --seconds 60
"""

import argparse
import asyncio
import io
import json
import multiprocessing
import os
import platform
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

from benchmarks.machine import machine
from minddiffuser.stopping import TIED
from minddiffuser.viewing.subscribe import percentiles
from stream.mqtt.broker import EmbeddedBroker
from stream.mqtt.messages import lsl_clock
from stream.mqtt.publisher import Publisher

RATES = (10, 30)
TCP, BROWSERS, FROZEN = 3, 20, 2
SESSION = "benchmark"
WARM = 90.0
"""Seconds after which memory is taken to have reached its level: every bounded buffer is full by then."""
SPAWN = multiprocessing.get_context("spawn")


def pictures() -> list[bytes]:
    """Make eight 512x512 JPEGs of about 50 kB: smooth noise, compressed as the live loop does by default."""
    rng = np.random.default_rng(1)
    made = []
    for _ in range(8):
        coarse = rng.integers(0, 256, (64, 64, 3), np.uint8)
        pixels = np.asarray(Image.fromarray(coarse).resize((512, 512), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(pixels + rng.normal(0, 5, pixels.shape), 0, 255).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noisy).save(buffer, "jpeg", quality=85)
        made.append(buffer.getvalue())
    return made


def publisher_process(pipe: Connection) -> None:
    """Embed a broker, say its port, and publish whenever a (rate, seconds) comes; answer with what was published."""
    asyncio.run(_publish(pipe))


async def _publish(pipe: Connection) -> None:
    files = pictures()
    number = 0
    async with EmbeddedBroker() as broker, Publisher(broker.spec, SESSION, data="benchmark pictures") as publisher:
        publisher.status({"state": "running"})
        pipe.send((broker.port, statistics.mean(map(len, files))))
        while (order := await asyncio.to_thread(pipe.recv)) is not None:
            rate, seconds = order
            before, start = publisher.counts["picture"].published, time.perf_counter()
            for tick in range(round(rate * seconds)):
                await asyncio.sleep(max(0.0, start + tick / rate - time.perf_counter()))
                number += 1
                # Trailing bytes after the end of a JPEG are let be by every decoder, and make the digest unique.
                publisher.picture(files[number % len(files)] + number.to_bytes(8), {"window_id": f"{number:07d}"})
            await publisher.flush()
            pipe.send((publisher.counts["picture"].published - before, publisher.counts["picture"].dropped))


def clients_process(url: str, pipe: Connection) -> None:
    """Be twenty browsers until told to stop; answer with the windows and latencies that each got."""
    asyncio.run(_look(url, pipe))


async def _look(url: str, pipe: Connection) -> None:
    got: list[dict[str, float]] = [{} for _ in range(BROWSERS)]
    async with aiohttp.ClientSession() as http:
        greeted = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(_client(http, url, windows, greeted)) for windows in got]
        for _ in tasks:
            await greeted.acquire()
        pipe.send("ready")
        await asyncio.to_thread(pipe.recv)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    pipe.send(got)


async def _client(http: aiohttp.ClientSession, url: str, windows: dict[str, float], greeted: asyncio.Semaphore) -> None:
    opened = lsl_clock()  # what a page finds when it opens was published before, and does not count
    async with http.ws_connect(f"{url}/socket", max_msg_size=0) as page:
        await page.send_json({"token": ""})
        async for message in page:
            now = lsl_clock()
            if message.type is aiohttp.WSMsgType.TEXT:
                if json.loads(message.data)["type"] == "broker":
                    greeted.release()
                continue
            (length,) = struct.unpack(">I", message.data[:4])
            header = json.loads(message.data[4 : 4 + length])
            published = header["meta"]["times"]["published"]
            if header["stage"] == "picture" and published > opened:
                windows[header["window_id"]] = 1e3 * (now - published)


def frozen_viewer(port: int) -> socket.socket:
    """Open a page's socket and never read from it."""
    viewer = socket.create_connection(("127.0.0.1", port))
    viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    viewer.sendall(
        f"GET /socket HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        + b"\x81\x82\0\0\0\0{}"
    )
    return viewer


def minddiffuser(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start one of our commands; it ends when we do."""
    tied: dict[str, Any] = {"stdin": subprocess.PIPE, "env": os.environ | {TIED: "1"}}
    return subprocess.Popen([sys.executable, "-m", "minddiffuser", *arguments], text=True, **tied, **options)


def resident_mb(*pids: int) -> float:
    """Sum the resident memory of processes, in MB."""
    page = os.sysconf("SC_PAGE_SIZE")
    return sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page for pid in pids) / 1e6


def wait_for_port(port: int, seconds: float = 60.0) -> None:
    """Wait until something listens on a port."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


class Bench:
    """The processes of one run."""

    def __init__(self, stack: ExitStack) -> None:
        self._orders, theirs = SPAWN.Pipe()
        self._publisher = SPAWN.Process(target=publisher_process, args=(theirs,))
        self._publisher.start()
        stack.callback(self._publisher.join, 10)
        stack.callback(self._orders.send, None)
        self.broker, self.picture_bytes = self._orders.recv()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._display = minddiffuser(
            "display", "--broker", f"127.0.0.1:{self.broker}", "--port", str(self.port), stderr=subprocess.DEVNULL
        )
        stack.callback(self._display.wait, 20)
        stack.callback(self._display.terminate)
        wait_for_port(self.port)
        for _ in range(FROZEN):
            stack.enter_context(frozen_viewer(self.port))
        self.memory: list[tuple[float, float]] = []
        self._began = time.monotonic()

    def look_at_memory(self) -> None:
        """Note the memory of publisher with broker and of the display server."""
        resident = resident_mb(self._publisher.pid or 0, self._display.pid)
        self.memory.append((round(time.monotonic() - self._began, 1), round(resident, 1)))

    def phase(self, rate: int, seconds: float) -> dict[str, Any]:
        """Publish at a rate, with everybody looking."""
        arguments = ("subscribe", "--broker", f"127.0.0.1:{self.broker}", "--session", SESSION, "--json")
        subscribers = [minddiffuser(*arguments, stdout=subprocess.PIPE) for _ in range(TCP)]
        ours, theirs = SPAWN.Pipe()
        clients = SPAWN.Process(target=clients_process, args=(f"http://127.0.0.1:{self.port}", theirs))
        clients.start()
        for subscriber in subscribers:
            assert subscriber.stdout
            subscriber.stdout.readline()
        ours.recv()
        self._orders.send((rate, seconds))
        while not self._orders.poll(5.0):
            self.look_at_memory()
        published, dropped = self._orders.recv()
        self.look_at_memory()
        time.sleep(2.0)  # what is under way may still arrive
        ours.send("stop")
        windows = ours.recv()
        clients.join(10)
        summaries = []
        for subscriber in subscribers:
            subscriber.send_signal(signal.SIGINT)
            out, _ = subscriber.communicate(timeout=30)
            summaries.append(json.loads(out.splitlines()[-1]))
        return {
            "sent": published,
            "unsent": dropped,
            "tcp": _tcp(summaries, published),
            "browser": _browser(windows, published),
        }


def _tcp(summaries: list[dict[str, Any]], published: int) -> dict[str, Any]:
    """Merge the subscribers' results: what is lost is summed, of the latencies the worst subscriber counts."""
    latencies = [summary["latency_ms"]["picture"] for summary in summaries]
    return {
        "sent": published,
        "lost": sum(published - summary["pictures"] for summary in summaries),
        "out_of_order": sum(summary["out_of_order"] for summary in summaries),
        **{f"{name}_ms": max(one[name] for one in latencies) for name in ("p50", "p99", "max")},
    }


def _browser(windows: list[dict[str, float]], published: int) -> dict[str, Any]:
    together = percentiles([late for one in windows for late in one.values()])
    return {
        "sent": published,
        "lost": sum(published - len(one) for one in windows),
        **{f"{name}_ms": together[name] for name in ("p50", "p99", "max")},
    }


def run(seconds: float) -> dict[str, Any]:
    """Run both rates; the keys are fixed, later checks read them."""
    with ExitStack() as stack:
        bench = Bench(stack)
        rates = {str(rate): bench.phase(rate, seconds / len(RATES)) for rate in RATES}
        memory = bench.memory
    warm = min(WARM, seconds / 4)
    settled = [resident for at, resident in memory if at >= warm]
    answer: dict[str, Any] = {}
    for kind in ("tcp", "browser"):
        own = [rates[rate][kind] for rate in rates]
        answer[kind] = {
            "sent": sum(one["sent"] for one in own),
            "lost": sum(one["lost"] for one in own),
            **{name: max(one[name] for one in own) for name in ("p50_ms", "p99_ms", "max_ms")},
        }
    return answer | {
        "rss_mb": {"start": settled[0], "end": settled[-1], "max": max(settled), "start_at_s": warm},
        "memory_mb": memory[:: max(1, len(memory) // 40)],
        "rates": rates,
        "clients": {"tcp": TCP, "browser": BROWSERS, "frozen": FROZEN},
        "picture_bytes": round(bench.picture_bytes),
        "seconds": seconds,
        "repeats": 1,
        "machine": machine(),
        "versions": {name: version(name) for name in ("minddiffuser", "aiohttp", "aiomqtt", "amqtt")}
        | {"python": platform.python_version()},
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=60.0, help="in all; half of it at each rate")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    answer = run(arguments.seconds)
    if arguments.json:
        print(json.dumps(answer))
        return
    print(f"{'rate':>6} {'who':<8} {'sent':>6} {'lost':>5} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}")
    for rate, phase in answer["rates"].items():
        for who in ("tcp", "browser"):
            one = phase[who]
            figures = " ".join(f"{one[name]:8.1f}" for name in ("p50_ms", "p99_ms", "max_ms"))
            print(f"{rate + ' Hz':>6} {who:<8} {one['sent']:6d} {one['lost']:5d} {figures}")
    memory = answer["rss_mb"]
    print(f"memory of publisher, broker and display: {memory['start']} MB after {memory['start_at_s']:g} s, "
          f"{memory['end']} MB at the end, {memory['max']} MB at most")  # fmt: skip


if __name__ == "__main__":
    main()
