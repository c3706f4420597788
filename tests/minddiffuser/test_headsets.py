"""The recipes by headset: what each app really streams is understood through its template as it is meant.

Names, types, labels, units and rates are those of the apps' own source where it is public (docs/how-to/headsets.md).
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minddiffuser.config.spec import Config, load_config
from stream.files.formats.mne_files import apply_reading_spec
from stream.files.formats.xdf import read_xdf
from stream.files.xdf_writer import XdfWriter
from stream.lsl.discovery import describe, is_markers, load_lsl, only
from stream.markers.choice import default_marker_stream, trigger_channel
from stream.recording.stream_watcher import connect
from stream.signal.filters import FilterChain
from stream.types.labels import LabelMatcher
from stream.types.levels import unlikely
from stream.types.recording import choose_streams
from tests.conftest import ROOT
from tests.stream.amp import markers, outlet

TEMPLATES = sorted((ROOT / "configs" / "headsets").glob("*.yaml"))
UV, RNG = "microvolts", np.random.default_rng(0)
SECOND = 1.0


@dataclass(frozen=True)
class App:
    """What an app streams, and what is to be understood of it.

    Attributes
    ----------
    name, type : str
    columns : tuple of (label, type, unit)
        As the app states them; empty texts where it states none.
    rate : float
    eeg : tuple of str
        The channels that windows are cut from.
    markers : tuple of str
        Its own marker streams.
    trigger : str
        The marker stream or trigger column that is taken, where nothing else runs; '' where there is none.
    """

    name: str
    type: str
    columns: tuple[tuple[str, str, str], ...]
    rate: float
    eeg: tuple[str, ...]
    markers: tuple[str, ...] = ()
    trigger: str = ""

    def open(self) -> list[Any]:
        """Start its outlets, as it would: no metadata at all where it states nothing."""
        labels, types, units = zip(*self.columns, strict=True)
        if any(labels):
            data = outlet(
                self.name, self.type, labels, sfreq=self.rate, unit=units, types=types, fmt="float32",
                source_id=f"{self.name} of {self.trigger}",
            )  # fmt: skip
        else:
            data = markers(self.name, self.type, columns=len(labels), fmt="float32", sfreq=self.rate)
        return [data, *(markers(name) for name in self.markers)]

    def samples(self) -> np.ndarray[Any, Any]:
        """Make a second of plausible numbers: some tens of microvolts, counters that count, codes now and then."""
        n = round(self.rate * SECOND)
        data = RNG.normal(0, 20, (n, len(self.columns)))
        for i, (label, kind, _) in enumerate(self.columns):
            if label and label not in self.eeg and kind not in {"EXG", "AUX"}:
                data[:, i] = np.arange(n) * (label in {"Counter", "SampleCounter", "Timestamp"})
        return data.astype(np.float32)


def eeg(*labels: str, unit: str = UV) -> tuple[tuple[str, str, str], ...]:
    """Describe electrodes as most apps do."""
    return tuple((label, "EEG", unit) for label in labels)


MUSE = ("TP9", "AF7", "AF8", "TP10")
EPOC = ("AF3", "F7", "F3", "FC5", "T7", "P7", "O1", "O2", "P8", "T8", "FC6", "F4", "F8", "AF4")
TEN = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2")
DSI = ("P3", "C3", "F3", "Fz", "F4", "C4", "P4", "Cz", "Fp1", "Fp2", "T3", "T5", "O1", "O2", "F7", "F8", "T6", "T4")
UNICORN = ("Fz", "C3", "Cz", "C4", "Pz", "PO7", "Oz", "PO8")
A32 = tuple(f"A{k}" for k in range(1, 33))
NOTHING = ("", "", "")
APPS: dict[str, tuple[str, App]] = {
    "muse-lsl": ("muse", App("Muse", "EEG", eeg(*MUSE, "Right AUX"), 256, MUSE)),
    "BlueMuse, Muse S": ("muse", App("Muse-1A2B (00:55:da:b0:1a:2b)", "EEG", eeg(*MUSE), 256, MUSE)),
    "OpenBCI GUI, Cyton": (
        "openbci-cyton",
        App("obci_eeg1", "EEG", (NOTHING,) * 8, 250, ("Fp1", "Fp2", "C3", "C4", "P7", "P8", "O1", "O2")),
    ),
    "OpenBCI GUI, Ganglion": (
        "openbci-ganglion",
        App("obci_eeg1", "EEG", (NOTHING,) * 4, 200, ("O1", "O2", "P7", "P8")),
    ),
    "EmotivPRO": (
        "emotiv",
        App(
            "EmotivDataStream-EEG", "EEG",
            (*eeg("Timestamp", "Counter", "Interpolate", *EPOC, unit=""), *eeg("HardwareMarker", "Markers", unit="")),
            256, EPOC,
        ),
    ),
    "EmotivPRO, markers of its own": (
        "emotiv",
        App(
            "EmotivDataStream-EEG", "EEG", eeg("Timestamp", "Counter", "Interpolate", *EPOC, "Markers"), 128, EPOC,
            trigger="Markers",
        ),
    ),
    "Unicorn LSL": ("unicorn", App("UN-2019.05.51", "Data", (NOTHING,) * 17, 250, UNICORN)),
    "App-g.Tec, g.USBamp": (
        "g-usbamp",
        App("g.USBamp", "EEG", eeg(*TEN), 256, TEN, ("g.USBamp-Markers",), "g.USBamp-Markers"),
    ),
    "App-g.Tec, g.NEEDaccess with a g.USBamp": (
        "g-needaccess",
        App(
            "UB-2015.01.01", "EEG",
            (
                *eeg(*TEN, unit="uV"),
                ("Counter", "Counter", "mod(samples,1000000)"), ("Digital IOs", "DigitalIOs", "unknown"),
            ),
            256, TEN, trigger="Digital IOs",
        ),
    ),
    "App-g.Tec, g.NEEDaccess with a g.HIamp": (
        "g-needaccess",
        App(
            "HA-2014.01.01", "EEG", (*eeg(*TEN, unit="uV"), ("Trigger", "digital", "16-bit mask")), 512, TEN,
            trigger="Trigger",
        ),
    ),
    "App-g.Tec, g.NEEDaccess with a g.Nautilus": (
        "g-needaccess",
        App(
            "NA-2014.07.67", "EEG",
            (
                *eeg(*TEN, unit="uV"),
                *((f"ACC {axis}", "Accelerometer", "g") for axis in "XYZ"),
                ("Counter", "Counter", "samples"), ("Link Quality", "LinkQuality", "unknown"),
                ("Battery Level", "BatteryLevel", "unknown"), ("Digital IOs", "DigitalIOs", "unknown"),
                ("Validation Indicator", "ValidationIndicator", "unknown"),
            ),
            250, TEN, trigger="Digital IOs",
        ),
    ),
    "BrainVision RDA": (
        "brainvision-rda",
        App(
            "BrainVision RDA", "EEG", (*eeg(*TEN), ("MkIdx", "Marker", "Counts (decimal)")), 500, TEN,
            ("BrainVision RDA Markers",), "BrainVision RDA Markers",
        ),
    ),
    "BrainAmpSeries": (
        "brainamp",
        App(
            "BrainAmpSeries-Dev_1", "EEG", (*eeg(*TEN, "ECG"), ("triggerStream", "EEG", "code")), 500, TEN,
            ("BrainAmpSeries-Dev_1-Markers",), "BrainAmpSeries-Dev_1-Markers",
        ),
    ),
    "BrainAmpSeries, triggers as a column": (
        "brainamp",
        App(
            "BrainAmpSeries-Dev_1", "EEG", (*eeg(*TEN), ("triggerStream", "EEG", "code")), 500, TEN,
            trigger="triggerStream",
        ),
    ),
    "LiveAmp": (
        "liveamp",
        App(
            "LiveAmpSN-055610-0321", "EEG",
            (
                *eeg(*TEN), ("bip1", "bipolar", UV), ("aux1", "AUX", UV),
                *((f"ACC_{axis}", "ACC", "milliGs") for axis in "XYZ"),
                ("SampleCounter", "SampleCounter", ""), ("DeviceTrigger", "Trigger", "integer"),
            ),
            500, TEN, ("LiveAmpSN-055610-0321-DeviceTrigger",), "LiveAmpSN-055610-0321-DeviceTrigger",
        ),
    ),
    "lsl-eego": (
        "eego",
        App(
            "eegoSports EE225-000000-000001", "EEG",
            (*eeg(*TEN, unit="uV"), ("AUX1", "AUX", "uV"), ("TRIGGER", "Markers", "[]")), 512, TEN, trigger="TRIGGER",
        ),
    ),
    "App-BioSemi": (
        "biosemi",
        App(
            "BioSemi", "EEG",
            (("Trig1", "Trigger", UV), *eeg(*A32), *((f"EX{k}", "EXG", UV) for k in range(1, 9)), ("AUX1", "AUX", UV)),
            512, A32, trigger="Trig1",
        ),
    ),
    "dsi2lsl": (
        "dsi",
        App(
            "WS-default", "EEG", eeg(*DSI[:8], "A1", *DSI[8:14], "X3", "X2", *DSI[14:16], "X1", "A2", *DSI[16:], "TRG"),
            300, DSI, trigger="TRG",
        ),
    ),
}  # fmt: skip
"""By app: the template that is meant for it, and what it streams."""


@pytest.fixture(scope="module", params=APPS)
def running(request: pytest.FixtureRequest, everything: dict[str, Any]) -> Any:
    """Give an app, its template's config, and what a look-around finds of it."""
    template, app = APPS[request.param]
    config = load_config(ROOT / "configs" / "headsets" / f"{template}.yaml")
    outlets, found = everything[request.param]
    return app, config, outlets, found


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    """Start all apps at once and look around once; each app's streams are then taken as if they ran alone."""
    lsl = load_lsl()
    outlets = {name: app.open() for name, (_, app) in APPS.items()}
    uids = {name: [each.get_info().uid() for each in own] for name, own in outlets.items()}
    wanted = {uid for own in uids.values() for uid in own}
    found: list[Any] = []
    for _ in range(20):
        found = [info for info in lsl.resolve_streams(1.0) if info.uid() in wanted]
        if len(found) == len(wanted):
            break
    return {name: (outlets[name], [info for info in found if info.uid() in uids[name]]) for name in APPS}


def test_an_app_is_understood_through_its_template(running: Any) -> None:
    """Its stream is found; electrodes, and nothing else, are cut from, in volts, at its rate; its markers are taken."""
    app, config, (data, *_), found = running
    lsl = load_lsl()
    info = only(found, config.source, lsl=lsl)
    assert info is not None, f"no stream with {config.source}"
    assert info.name() == app.name
    opened = connect(lsl, info)
    assert opened is not None
    inlet = opened[0]
    try:
        spec = config.source
        source = describe(
            inlet.info(5.0), spec.unit, sfreq=spec.sfreq, kind=spec.type, needed=config.filters.channels,
            names=spec.channel_names,
        )  # fmt: skip
        assert source.sfreq == app.rate
        chain = FilterChain(config.filters, source.channels, source.sfreq)
        assert chain.channels.names == app.eeg
        assert set(zip(chain.channels.kinds, chain.channels.units, strict=True)) == {("eeg", "V")}
        assert data.wait_for_consumers(5.0)
        sent = app.samples()
        data.push_chunk(sent)
        rows: list[list[float]] = []
        deadline = time.monotonic() + 10
        while len(rows) < len(sent):
            assert time.monotonic() < deadline, "the samples did not come"
            rows += inlet.pull_chunk(timeout=0.05, max_samples=32)[0]
        volts = np.array(rows) * source.factors
        assert unlikely(source.channels, volts.astype(np.float32), source.sfreq) == ()
        picked = [source.channels.names.index(name) for name in app.eeg]
        np.testing.assert_allclose(volts[:, picked], sent[:, picked].astype(np.float64) * 1e-6)
    finally:
        inlet.close_stream()
    if app.trigger:
        (selector,) = config.source.markers or [None]
        streams = [each.name() for each in found if is_markers(each)]
        named = only(found, selector, lsl=lsl).name() if selector else default_marker_stream(streams, source.name)
        assert (named or trigger_channel(source.channels)) == app.trigger


def test_a_recording_of_an_app_is_understood_as_the_app_is(running: Any, tmp_path: Path) -> None:
    """By one rule live and in files: the same electrodes and units of an XDF with the stream's own metadata."""
    app, config, (data, *_), _ = running
    assert isinstance(config, Config)
    sent = app.samples()
    with XdfWriter(tmp_path / "own.xdf") as file:
        number = file.stream(data.get_info().as_xml())
        file.samples(number, 10 + np.arange(len(sent)) / app.rate, sent)
        file.footer(number, 10.0, 11.0, len(sent), [])
    (own,) = choose_streams(apply_reading_spec(read_xdf(tmp_path / "own.xdf"), config.source), config.source)
    chain = FilterChain(config.filters, own.channels, own.sfreq)
    assert chain.channels.names == app.eeg
    assert set(zip(chain.channels.kinds, chain.channels.units, strict=True)) == {("eeg", "V")}
    picked = [own.channels.names.index(name) for name in app.eeg]
    np.testing.assert_allclose(own.data[:, picked], sent[:, picked] * 1e-6, rtol=1e-5)


def test_every_template_has_an_app() -> None:
    """No recipe goes untested, and each is called like its file."""
    assert {template for template, _ in APPS.values()} == {path.stem for path in TEMPLATES}
    assert [load_config(path).name for path in TEMPLATES] == [path.stem for path in TEMPLATES]


def test_markers_of_brainvision_rda_name_their_picture() -> None:
    """The app's running number before the marker's text is no part of it."""
    matcher = LabelMatcher(["5", "cat"])
    assert [matcher.match(text) for text in ("mk7=S  5", "mk12=cat", "mk=cat")] == ["5", "cat", None]


@pytest.mark.parametrize("names", [("Fp1", "Fp2"), tuple("abcdefghi")])
def test_names_that_are_not_as_many_as_the_columns_are_refused(names: tuple[str, ...]) -> None:
    """The message has both numbers, live and of a file."""
    info = markers("obci_eeg1", "EEG", columns=8, fmt="float32", sfreq=250.0).get_info()
    words = f"source.channel_names names {len(names)} columns, and stream 'obci_eeg1' has 8: name each"
    with pytest.raises(Exception, match=words):
        describe(info, "uV", names=names)
