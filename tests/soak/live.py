"""The real `minddiffuser live` on a source of the soak, and its account."""

import asyncio
import json
import signal
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from decoder.models.bundle import Bundle
from minddiffuser.config.spec import Config, load_config
from stream.errors import PublishError
from stream.mqtt.broker import BrokerSpec
from stream.mqtt.subscriber import Subscriber
from tests.soak.chaos import start
from tests.soak.plan import COUNTER, Plan

END_S = 60.0
NOISE = {"levels": "warn", "reject_peak_to_peak": {}}
"""Filters that let noise pass as if it were a brain's signal."""
OPTIONS = ("--no-display", "--json")


class LiveProgram:
    """`minddiffuser live CONFIG --bundle BUNDLE` in a process of its own.

    Parameters
    ----------
    config, bundle : Path
        A bundle and the config it was trained with.
    """

    def __init__(self, config: Path, bundle: Path) -> None:
        self.config: Config = load_config(config)
        self._raw = yaml.safe_load(config.read_text("utf-8"))
        self._bundle_folder = bundle
        self.bundle = Bundle.load(bundle)
        self._folder = tempfile.TemporaryDirectory()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.process: subprocess.Popen[str] | None = None

    def start(self, source: str) -> None:
        """Start the program on the stream of a name; the counter is not part of what the bundle knows.

        The source sends white noise, which no bundle was trained on: it is to be decoded and published all the same.
        """
        raw = dict(self._raw)
        raw["source"] = {"name": source, "timeout_s": 60}
        raw["filters"] = {**raw.get("filters", {}), **NOISE, "channels": list(self.bundle.channels.names)}
        raw["broker"] = {"port": self._port}
        raw["publish"] = {**raw.get("publish", {}), "session": "soak", "abstain_below": 0}
        path = Path(self._folder.name) / "live.yaml"
        path.write_text(yaml.safe_dump(raw), "utf-8")
        self.process = start("minddiffuser", "live", str(path), "--bundle", str(self._bundle_folder), *OPTIONS)

    def wait_until_running(self, seconds: float) -> None:
        """Wait until the session says that it reads its source."""
        asyncio.run(asyncio.wait_for(self._running(), seconds))

    async def _running(self) -> None:
        broker = BrokerSpec(host="127.0.0.1", port=self._port)
        while True:
            try:
                async with Subscriber(broker, "soak") as messages:
                    async for message in messages:
                        if message.kind == "status" and message.json().get("state") == "running":
                            return
            except PublishError:
                await asyncio.sleep(0.2)

    def end(self, number: signal.Signals = signal.SIGINT) -> dict[str, Any]:
        """Ask it to end, and read its answer."""
        assert self.process
        self.process.send_signal(number)
        answer, _ = self.process.communicate(timeout=END_S)
        if self.process.returncode:
            raise RuntimeError(f"live ended with exit code {self.process.returncode}")
        said: dict[str, Any] = json.loads(answer.splitlines()[-1])
        return said

    def kill(self) -> None:
        """Make sure that it is gone."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._folder.cleanup()


def live_account(plan: Plan, said: dict[str, Any]) -> tuple[dict[str, int], list[str]]:
    """Add up what `live` answered: each marker sent, each window cut.

    Returns
    -------
    figures : dict
    wrong : list of str
    """
    ingest = said["ingest"]
    pushed = int(plan.ledger("markers-sent").sum())
    ends = {name: said[name] for name in ("published", "dropped", "rejected", "abstained", "failed")}
    places = ingest["samples"] + ingest["lost"]
    figures = {
        "markers sent": pushed,
        "lost on the way": pushed - ingest["events"],
        **{name: ingest[name] for name in ("duplicates", "incomplete", "pending")},
        **ends,
    }
    wrong = []
    if places != plan.places:
        wrong.append(f"live: {places} samples received or reported as lost, the grid has {plan.places}")
    if pushed != sum(figures.values()) - pushed:
        wrong.append(f"live: {pushed} markers sent, but {figures}")
    if said["windows"] != sum(ends.values()) or said["windows"] != ingest["windows"]:
        wrong.append(f"live: {said['windows']} windows, {ingest['windows']} cut, but {ends}")
    pictures = said["messages"]["picture"]
    if pictures["published"] + pictures["dropped"] + pictures["denied"] != said["published"]:
        wrong.append(f"live: {said['published']} pictures published, but the publisher counts {pictures}")
    gone = ingest["disconnections"] or plan.marker_outages
    if figures["lost on the way"] < 0 or (figures["lost on the way"] and not gone):
        wrong.append(f"live: {figures['lost on the way']} markers lost, but no disconnection")
    return figures, wrong


def plan_of(live: LiveProgram, name: str, seconds: float, seed: int, folder: Path) -> Plan:
    """Plan a source with the channels and the rate of a bundle."""
    channels = live.bundle.channels
    assert COUNTER not in channels.names
    rate = live.bundle.sfreq * live.config.filters.decimate
    window = round(rate)
    marker_window = round(max(live.config.window.tmax, 0.1) * rate)
    return Plan(
        name,
        channels.units[0],
        channels.names,
        channels.kinds[0].upper(),
        rate,
        1.00002,
        int(seconds) * window,
        window,
        round(1.1 * rate),
        marker_window,
        seed,
        str(folder),
    )
