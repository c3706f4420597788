"""What became of samples, windows and pictures, as tables for people: `live`, `record`, `subscribe` and `doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minddiffuser.report.tables import bold, delay_line, table
from stream.mqtt.topics import PICTURES
from stream.types.source_spec import NOTES

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minddiffuser.setup.doctor import Finding

FATES = {
    "published": "their picture went out",
    "rejected": "not decoded: bad samples",
    "abstained": "decoded, not shown: confidence below the threshold, or numbers not finite",
    "dropped": "not processed: later ones were waiting",
    "failed": "an error; each is in the log",
}
"""What becomes of a window: one word for each, everywhere."""
STEPS = {
    "window_ready": "window complete",
    "decoded": "decoded",
    "stage1": "preview made",
    "stage2": "final made",
    "preview": "window to preview",
    "picture": "window to final",
    "total": "last sample to final",
}
"""What people call the steps of the latency; others go by their own name."""


def live(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield the account of a live session."""
    windows = found["windows"]
    rows = [(word, str(found[word]), _share(found[word], windows), what) for word, what in FATES.items()]
    yield table(f"{found['stream']}: {windows} windows", ("what became of them", "windows", "share", "why"), rows)
    yield from delay_line(found)
    if text := found.get("rejection", {}).get("text"):
        yield bold(f"By their samples: {text}")
    ingest = found["ingest"]
    yield table("Stream and markers", ("what", "count"), _ingest(ingest), numbers=1)
    if steps := {name: one for name, one in found["latency_ms"].items() if one and one.get("p50") is not None}:
        yield _latency("Latency of each step, ms", steps)
    for kind, one in found.get("messages", {}).items():
        if kind in PICTURES and (unsent := one["dropped"] + one["denied"]):
            yield f"The broker did not get {unsent} of {one['put']} times a {kind}: it was gone, or refused it"
    if ended := found.get("ended"):
        yield f"Ended: {ended}."
    for problem in found["problems"]:
        yield f"Problem at the end: {problem}"
    yield from _live_in_short(found)


def simulate(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield the account of a simulated amplifier."""
    examples = ", ".join(map(repr, found["unknown_labels"]))
    rows = [
        ("samples sent", str(found["samples"]), ""),
        ("samples lost on purpose", str(found["dropped"]), "--drop") if found["dropped"] else None,
        ("markers", str(found["markers"]), ""),
        ("answered", str(found["answered"]), "a picture was seen"),
        ("late", str(found["late"]), "came after samples of their time were sent") if found["late"] else None,
        ("unknown", str(found["unknown"]), f"name no picture: {examples}") if found["unknown"] else None,
    ]
    yield table("Simulated participant", ("what", "count", ""), [row for row in rows if row])


def pool(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield the account of a pool."""
    rows = [
        ("pictures", str(found["pictures"]), "answered with a picture"),
        ("failed", str(found["failed"]), "answered with why there is none"),
        ("abandoned", str(found["abandoned"]), "their room went away, or waited no more"),
        ("sent once more", str(found["resent"]), "their engine died") if found["resent"] else None,
        *((f"refused: {reason}", str(count), "") for reason, count in found["refused"].items()),
    ]
    title = f"Pool: {found['windows']} windows of {len(found['rooms'])} rooms"
    yield table(title, ("what became of them", "count", ""), [row for row in rows if row])


def export(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield what was written of each recording."""
    rows = [
        (run["file"], *(str(run[key]) for key in ("samples", "lost", "events", "pictures"))) for run in found["runs"]
    ]
    yield table(f"BIDS data set {found['folder']}", ("run", "samples", "lost", "events", "pictures"), rows, numbers=4)
    for run in found["runs"]:
        for line in run["left_out"]:
            yield f"{run['recording']}: not held by BIDS: {line}"


def markers(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield the account of the door of browser experiments."""
    rows = [
        ("markers sent", str(found["sent"]), ""),
        ("sent again by a page", str(found["again"]), "no second marker was made"),
        ("unheard", str(found["unheard"]), "nobody listened to the stream"),
        ("pages", str(found["pages"]), ""),
        ("most error of a stamp", f"{found['most_error_ms']:g} ms", "half of the best round trip"),
        *((f"refused: {reason}", str(count), "") for reason, count in found["refused"].items()),
    ]
    yield table("Marker door", ("what", "count", ""), rows)


def _share(part: int, of: int) -> str:
    return f"{part / of:.0%}" if of else "-"


def _ingest(ingest: Mapping[str, int]) -> list[tuple[str, str]]:
    words = {
        "samples": "samples",
        "lost": "samples lost",
        "gap_count": "gaps",
        "disconnections": "disconnections",
        "events": "events (markers read)",
        "unmatched": "unmatched (no picture of that name)",
        "incomplete": "events without a whole window",
        "ignored": "markers that window.events leaves out",
    }
    always = {"samples", "lost", "events"}
    return [
        (word, str(ingest[key])) for key, word in words.items() if ingest.get(key) or (key in always and key in ingest)
    ]


def _latency(title: str, steps: Mapping[str, Mapping[str, float | None]]) -> RenderableType:
    rows = [
        (
            STEPS.get(name, name.replace("_", " ")),
            *("-" if one.get(q) is None else f"{one[q]:.0f}" for q in ("p50", "p99")),
        )
        for name, one in steps.items()
    ]
    return table(title, ("step", "p50", "p99"), rows, numbers=2)


def _live_in_short(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield in one line whether pictures came, and what to do next."""
    windows, published = found["windows"], found["published"]
    archive = found.get("archive")
    if not windows:
        yield bold("No window: samples came, and no event led to one")
        yield "Next: see which markers come: minddiffuser inspect --live"
        return
    worst = max((word for word in FATES if word != "published"), key=lambda word: int(found[word]))
    why = f"; most others were {worst} ({found[worst]})" if found[worst] else ""
    yield bold(f"{published} of {windows} windows gave a picture{why}")
    if archive and archive.get("folder"):
        yield f"Next: how good they are: minddiffuser evaluate {archive['folder']}"
    else:
        yield "Next: keep one with `archive: {folder: archive}` in the config, then: minddiffuser evaluate archive"


def record(found: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Yield the account of a recording."""
    rows = [
        (
            one["name"],
            one["type"] or "-",
            str(one["samples"]),
            str(one["lost"]),
            str(one["gap_count"]),
            "irregular" if not one["declared_hz"] else f"{one['declared_hz']:g} Hz",
            "-" if one["measured_hz"] is None else f"{one['measured_hz']:.6g} Hz",
        )
        for one in found["streams"]
    ]
    heads = ("stream", "type", "samples", "lost", "gaps", "declared rate", "measured rate")
    title = f"{found['file']}: {found['seconds']:.1f} s, {found['bytes'] / 1e6:.1f} MB"
    yield table(title, heads, rows, numbers=5)
    for one in found["streams"]:
        if one["warning"]:
            yield f"{one['name']}: {one['warning']}"
    yield bold(_recorded(found))
    yield f"Next: see whether it is understood as it was meant: minddiffuser inspect {found['file']}"


def _recorded(found: Mapping[str, Any]) -> str:
    """Return in one line whether the recording is whole, and whether it holds markers."""
    streams: Sequence[Mapping[str, Any]] = found["streams"]
    lost = f"{found['lost']} samples are missing" if found["lost"] else "no sample is missing"
    empty = [str(one["name"]) for one in streams if not one["samples"] and one["name"] != NOTES]
    text = f"Recorded: {lost}"
    if empty:
        text += f"; nothing came from {', '.join(empty)}"
    elif all(one["declared_hz"] for one in streams):
        text += "; no marker stream among them"
    return text


def subscribe(found: Mapping[str, Any], folder: str | None = None) -> Iterator[RenderableType]:
    """Yield the account of a subscription; `folder` is where its pictures were saved."""
    words = {
        "pictures": "final pictures",
        "previews": "previews",
        "originals": "pictures shown",
        "abstained": "windows abstained or rejected",
        "retained": "kept by the broker from before",
        "lost": "published, never came",
        "out_of_order": "out of order",
        "duplicates": "came twice",
        "unpaired": "without their other half",
        "bad": "metadata that are none",
        "refused": "messages refused",
        "reconnects": "reconnections",
    }
    rows = [(word, str(found[key])) for key, word in words.items() if found[key] or key in {"pictures", "previews"}]
    title = f"Session {found['session']}, {found['seconds']:.1f} s" + f": {found['data']}" * bool(found["data"])
    yield table(title, ("what came", "count"), rows, numbers=1)
    if found["latency_ms"]:
        yield _latency("Latency from published to complete here, ms", found["latency_ms"])
    for what, count in _refusals(found["refusals"]):
        yield f"{count} x {what}"
    if found["lost"] or found["dropped"] or found["failed"]:
        lost = found["lost"] + found["dropped"] + found["failed"]
        yield bold(f"Not all came: {lost} of what was published is missing")
    elif found["pictures"] or found["previews"]:
        yield bold(f"All came: {found['pictures']} final pictures, none lost")
    else:
        yield bold("No picture came")
        yield "Next: see whether a session runs: minddiffuser display"
        return
    yield f"Next: look at them in {folder}" if folder else "Next: keep them: minddiffuser subscribe --save FOLDER"


def _refusals(refusals: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for what, count in refusals.items():
        if isinstance(count, int):
            yield what, count


def doctor(findings: Sequence[Finding]) -> Iterator[RenderableType]:
    """Yield what was looked at on this machine, and whether it is enough."""
    words = {(True, True): "ok", (True, False): "ok", (False, True): "MISSING", (False, False): "without"}
    rows = [(words[one.ok, one.needed], one.text) for one in findings]
    yield table("This machine", ("state", "what"), rows)
    missing = [one for one in findings if one.needed and not one.ok]
    if missing:
        yield bold(
            f"Not ready: {len(missing)} of {sum(one.needed for one in findings)} things that are needed are missing"
        )
        yield f"Next: {missing[0].text}"
    else:
        yield bold("Ready: all that is needed is here")
        yield "Next: minddiffuser demo"
