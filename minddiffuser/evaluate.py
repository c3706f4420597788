"""`minddiffuser evaluate`: a bundle on its test recording, offline and live."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder import metrics
from decoder.bundle import Bundle
from decoder.datasets import Dataset
from decoder.features import Features
from decoder.stimuli import StimulusTable
from engine.models import load_models
from engine.picture import fault_of
from engine.reconstructor import Reconstructor
from minddiffuser.agreement import agreement
from minddiffuser.archive import Received, count_of, read_about, read_received
from minddiffuser.checks import spurious_checks
from minddiffuser.config import ArchiveSpec, Config, config_of
from minddiffuser.console import Report, progress
from minddiffuser.data import load_dataset, matcher_of, originals, true_poses
from minddiffuser.errors import AppError
from minddiffuser.live import ready_engine
from minddiffuser.perception import Judges
from minddiffuser.quality import pose_quality, score
from minddiffuser.rehearsal import rehearse
from minddiffuser.report import report_page
from stream.ingest import windows_of
from stream.labels import as_sent, mismatch
from stream.recordings import Recording, chosen, write_npz
from stream.windows import Window

log = logging.getLogger(__name__)

SCORING_SEED = 20261122
"""Of permutations and bootstrap: the same pictures get the same intervals every time."""

PERMUTATIONS = 1000
Rows = NDArray[np.intp]

LIVE_SPEED = {"event": 1.0, "sliding": 1.0, "sample": 20.0, "mean": 20.0}
"""How fast the live half replays: one vector a picture needs no real time, and waits for nobody."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures, JSON-able, and the page that shows them, where one was asked for and there is anything to show."""

    answer: dict[str, Any]
    page: str | None = None


async def run_evaluate(
    bundle_folder: Path,
    data_dir: Path | None,
    stop: asyncio.Event,
    *,
    live: bool = True,
    folder: Path | None = None,
    limit: int | None = None,
    live_limit: int | None = None,
    page: bool = False,
) -> Evaluation:
    """Evaluate a bundle offline and, on request, live through LSL and MQTT on the same recording.

    Parameters
    ----------
    bundle_folder : Path
    data_dir : Path or None
        Folder of recorded data sets.
    stop : asyncio.Event
        Ends the live half early.
    live : bool
    folder : Path, optional
        Where reconstructions are kept.
    limit : int, optional
        Only the first so many windows.
    live_limit : int, optional
        Of those, only the first so many live.
    page : bool
        Whether an HTML report is made too.
    """
    bundle = Bundle.load(bundle_folder)
    config = config_of(bundle.meta, bundle_folder)
    with ExitStack() as stack:
        report = stack.enter_context(progress())
        models = load_models(config.engine.models, config.engine.device)
        dataset = load_dataset(config, data_dir, models, report)
        reconstructor = ready_engine(config.engine, bundle, models)
        recording = first_events(dataset.live, limit)
        windows = usable_windows(recording, config)
        if not windows:
            raise AppError(
                f"recording {recording.name}: none of its {len(recording.events)} events gives a window to evaluate"
            )
        require_pictures(windows, dataset.stimuli)
        features = [bundle.decode([window])[0] for window in windows]
        offline = offline_pictures(windows, features, reconstructor, report)
    judges = Judges(models)
    answer: dict[str, Any] = {
        "bundle": str(bundle_folder),
        "config": config.name,
        "data": bundle.meta["data"],
        "overlap": bundle.meta.get("overlap"),
        "offline": figures(offline, dataset, judges),
    }
    if not _of_categories(offline):
        answer["checks"] = spurious_checks(offline, features, dataset, models)
    if live:
        shown = first_events(recording, live_limit)
        received, account = await _live(shown, config, bundle, reconstructor, dataset, stop, folder)
        answer["live"] = figures(received, dataset, judges) | {"account": account}
        ids = {window.id for window in (windows if shown is recording else usable_windows(shown, config))}
        both = [one for one in offline if one.meta["window_id"] in ids]
        answer["live_equals_offline"] = agreement(both, received, config.publish).to_dict()
    answer["versions"] = versions()
    if not page:
        return Evaluation(answer)
    text = report_page(
        f"Evaluation of {config.name}",
        str(answer["data"]),
        {name: answer[name] for name in ("offline", "live") if name in answer},
        offline,
        dataset.stimuli,
        agreement=answer.get("live_equals_offline"),
        checks=answer.get("checks"),
        versions=answer["versions"],
        command=f"minddiffuser evaluate {bundle_folder}"
        + " --offline" * (not live)
        + (f" --limit {limit}" if limit is not None else "")
        + (f" --live-limit {live_limit}" if live_limit is not None else ""),
    )
    return Evaluation(answer, text)


def evaluate_session(folder: Path, *, page: bool = False) -> Evaluation:
    """Score what an archived session published, from its own folder alone; `page` asks for an HTML report too.

    The mean image is that of the pictures the session showed, which are all that an archive knows.

    Raises
    ------
    AppError
        The folder is no archive, or a file of it is broken.
    """
    about = read_about(folder)
    received = read_received(folder, ("original", "preview", "picture"))
    answer: dict[str, Any] = {
        "session": about.get("session"),
        "config": (about.get("config") or {}).get("name"),
        "data": about.get("data"),
        "pictures": len(received),
        "abstained": count_of(folder, "abstained"),
        "removed": about.get("removed", 0),
    }
    if _of_categories(received):
        return Evaluation(answer | category_figures(received))
    shown = {one.label: one.stages["original"] for one in received if one.label and "original" in one.stages}
    if len(shown) < 2:
        return Evaluation(
            answer | {"figures": f"{len(shown)} original pictures are in the archive; two are the least to score"}
        )
    stimuli = StimulusTable(tuple(shown), np.stack(list(shown.values())))
    mean: NDArray[np.uint8] = np.round(stimuli.images.mean(axis=0, dtype=np.float64)).astype(np.uint8)
    found = picture_quality(received, stimuli, mean)
    if not page:
        return Evaluation(answer | found)
    title, data = f"Session {answer['session']}", str(answer["data"])
    command = f"minddiffuser evaluate {folder}"
    text = report_page(title, data, {"live": found}, received, stimuli, versions=versions(), command=command)
    return Evaluation(answer | found, text)


def usable_windows(recording: Recording, config: Config) -> list[Window]:
    """Cut a recording as a config says, and leave out windows that are rejected."""
    cut = windows_of(recording, config.window, config.filters, config.source, config.extra)
    return [window for window in cut if not window.quality.rejected]


def require_pictures(windows: Sequence[Window], stimuli: StimulusTable) -> None:
    """Warn of markers that name no picture.

    Raises
    ------
    AppError
        None of them does.
    """
    labels = [window.event.label for window in windows if window.event is not None]
    if line := mismatch(labels, stimuli.ids):
        if not set(labels) & set(stimuli.ids):
            raise AppError(line)
        log.warning("%s", line)


async def _live(
    recording: Recording,
    config: Config,
    bundle: Bundle,
    reconstructor: Reconstructor,
    dataset: Dataset,
    stop: asyncio.Event,
    folder: Path | None,
) -> tuple[list[Received], dict[str, Any]]:
    """Replay the recording and decode every window of it, however long each takes."""
    patient = config.queue.model_copy(update={"policy": "every", "length": 10_000})
    broker = config.broker.model_copy(update={"host": None, "port": 0})
    with tempfile.TemporaryDirectory(prefix="minddiffuser-") as scratch:
        file = Path(scratch) / "recording.npz"
        source, *_ = chosen(recording, config.source, config.extra)
        others = (stream for stream in recording.streams if stream is not source)
        # As the markers came: the live session names them itself.
        write_npz(
            as_sent(replace(recording, streams=(source, *others))), file
        )  # the replay gives the first a name of its own
        outcome = await rehearse(
            config.model_copy(update={"queue": patient, "broker": broker, "archive": ArchiveSpec()}),
            bundle,
            lambda: reconstructor,
            file,
            folder or Path(scratch) / "received",
            originals=originals(dataset.stimuli),
            speed=LIVE_SPEED[config.window.mode],
            stop=stop,
            labels=matcher_of(dataset.stimuli, config.labels) if config.data.dataset == "recording" else None,
        )
    return outcome.received, asdict(outcome.account) | {"lost": outcome.lost}


def offline_pictures(
    windows: Sequence[Window], features: Sequence[Features], reconstructor: Reconstructor, report: Report
) -> list[Received]:
    """Reconstruct decoded windows of a recording without a stream, by the live loop's own engine."""
    pictures = []
    for done, (window, decoded) in enumerate(zip(windows, features, strict=True)):
        report("reconstructing offline", done, len(windows))
        if (made := _reconstruct(window, decoded, reconstructor)) is not None:
            pictures.append(made)
    report("reconstructing offline", len(windows), len(windows))
    return pictures


def _reconstruct(window: Window, features: Features, reconstructor: Reconstructor) -> Received | None:
    """Reconstruct one window; None, with a warning, for one that a live session would leave out."""
    stages: dict[str, NDArray[np.uint8]] = {}
    if fault := fault_of(features):
        log.warning("window %s left out: decoded %s", window.id, fault)
        return None
    final = reconstructor.reconstruct(
        [features], on_preview=lambda pictures: stages.update(preview=pictures[0].pixels)
    )[0]
    if final.fault:
        log.warning("window %s left out: %s", window.id, final.fault)
        return None
    stages["picture"] = final.pixels
    event = {"label": window.event.label} if window.event else None
    meta = {"window_id": window.id, "event": event, "categories": features.categories, "seed": str(final.seed)}
    return Received(meta, stages)


def _of_categories(received: Sequence[Received]) -> bool:
    return bool(received) and all(one.meta.get("categories") for one in received)


def figures(received: Sequence[Received], dataset: Dataset, judges: Judges) -> dict[str, Any]:
    """Give the figure that fits the data: AUC for categories, scores of the pictures where each was one's own."""
    if _of_categories(received):
        return {"n": len(received), **category_figures(received)}
    found = picture_quality(received, dataset.stimuli, mean_training_image(dataset), judges)
    return found or {"figures": f"of {len(received)} windows fewer than two are of a picture known: nothing to score"}


def category_figures(received: Sequence[Received]) -> dict[str, Any]:
    """AUC (mean over categories, one against the rest; chance 0.5) and accuracy of single windows, beside chance.

    Windows of no category of the decoder's are left out and counted ('unknown').
    Each with its `<score>_interval` (95 %, bootstrap over windows within each category) and `<score>_p` (categories of
    windows permuted).
    """
    names, n = sorted(received[0].meta["categories"]), len(received)
    if line := mismatch((one.label for one in received), names, "windows"):
        log.warning("%s", line)
        received = [one for one in received if one.label in names]
    if len({one.label for one in received}) < 2:
        return {
            "figures": f"{len(received)} of {n} windows are of a known category; two of those are the least to score"
        }
    scores = np.array([[one.meta["categories"][name] for name in names] for one in received])
    rows = np.array([names.index(one.label) for one in received], dtype=np.intp)
    named = scores.argmax(axis=1)
    accuracy_chance = float(np.bincount(rows).max() / len(rows))
    return {
        "chance": 0.5,
        "accuracy_chance": round(accuracy_chance, 4),
        **({"unknown": n - len(received)} if n > len(received) else {}),
        **_with_chance("auc", lambda of, truth: metrics.mean_auc(scores[of], truth), rows),
        **_with_chance("accuracy", lambda of, truth: float((named[of] == truth).mean()), rows),
    }


def _with_chance(name: str, score: Callable[[Rows, Rows], float], rows: Rows) -> dict[str, Any]:
    """Score windows (which, and what each is held against), with an interval and a probability by chance."""
    rng, every = np.random.default_rng(SCORING_SEED), np.arange(len(rows))
    observed = score(every, rows)
    null = np.array([score(every, rng.permutation(rows)) for _ in range(PERMUTATIONS)])
    return {
        name: round(observed, 4),
        f"{name}_interval": metrics.category_interval(lambda chosen: score(chosen, rows[chosen]), rows, rng),
        f"{name}_p": round(metrics.p_value(observed, null), 4),
    }


def picture_quality(
    received: Sequence[Received],
    stimuli: StimulusTable,
    mean_image: NDArray[np.uint8],
    judges: Judges | None = None,
) -> dict[str, Any]:
    """Score received pictures whose original is known; empty if there are fewer than two of those."""
    known = [one for one in received if one.label in stimuli.ids and {"preview", "picture"} <= set(one.stages)]
    shown = stimuli.select(sorted({one.label for one in known}))
    if len(shown) < 2:
        return {}
    stages = {
        name: np.stack([one.stages[stage] for one in known])
        for name, stage in (("stage1", "preview"), ("stage2", "picture"))
    }
    own = shown.rows(one.label for one in known)
    rng = np.random.default_rng(SCORING_SEED)
    judge = None if judges is None else judges.against(shown.images, shown.concepts)
    found = score(shown.images, own, stages, mean_image, rng, judge)
    if poses := true_poses(shown):
        found["pose"] = pose_quality(poses, own, stages, mean_image, rng)
    return found


def mean_training_image(dataset: Dataset) -> NDArray[np.uint8]:
    """Mean of the pictures that the training recordings show."""
    labels = sorted(
        {event.label for recording in dataset.train for event in recording.events} & set(dataset.stimuli.ids)
    )
    # Onsets in a channel of the data become events only when windows are cut: then all pictures count.
    pictures = dataset.stimuli.select(labels).images if labels else dataset.stimuli.images
    mean: NDArray[np.uint8] = np.round(pictures.mean(axis=0, dtype=np.float64)).astype(np.uint8)
    return mean


def first_events(recording: Recording, limit: int | None) -> Recording:
    """Cut a recording short before its event number `limit`, so that only the earlier ones give windows."""
    if limit is None or len(recording.events) <= limit:
        return recording
    end = recording.events[limit].time
    streams = []
    for stream in recording.streams:
        n = int(np.searchsorted(stream.times, end))
        streams.append(replace(stream, times=stream.times[:n], data=stream.data[:n]))
    return replace(recording, streams=tuple(streams), events=recording.events[:limit])


def versions() -> dict[str, str]:
    """Versions of what figures depend on."""
    return {
        name: version(name)
        for name in ("minddiffuser", "torch", "diffusers", "open_clip_torch", "mne", "numpy", "pylsl")
    }
