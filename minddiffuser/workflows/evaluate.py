"""`minddiffuser evaluate`: a bundle on its test recording, offline and live."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.splits import shared_pictures
from decoder.data.stimuli import StimulusTable
from decoder.datasets import Dataset
from decoder.evaluation import metrics
from decoder.features import Features
from decoder.models.bundle import Bundle
from decoder.models.confidence import threshold_of
from decoder.versions import FIGURES, versions
from engine.models.loading import load_models
from engine.picture import fault_of
from engine.reconstructor import Reconstructor
from minddiffuser.archive.archive import Received
from minddiffuser.config.spec import ArchiveSpec, Config, config_of
from minddiffuser.console import progress
from minddiffuser.errors import AppError
from minddiffuser.evaluation.agreement import agreement
from minddiffuser.evaluation.checks import spurious_checks
from minddiffuser.evaluation.examples import choose, trios
from minddiffuser.evaluation.perception import Judges
from minddiffuser.evaluation.quality import pose_quality, score
from minddiffuser.evaluation.retrieved import retrieved_quality
from minddiffuser.evaluation.verdict import verdict_of_evaluation
from minddiffuser.live.beside import check_retrieval, retriever_of
from minddiffuser.live.engines import made_here, ready_engine
from minddiffuser.live.loopback import run_loopback
from minddiffuser.report.report import maps_seen_from, report_page
from minddiffuser.shipped import config_file
from minddiffuser.training.data import load_dataset, matcher_of, originals, true_poses
from minddiffuser.training.profile import rejection
from stream.epochs.ingest import windows_of
from stream.files.formats.npz import write_npz
from stream.quality.signal_profile import SignalProfile, profile_of
from stream.types.labels import mismatch
from stream.types.progress import Progress
from stream.types.recording import Recording, choose_streams, with_original_labels
from stream.types.windows import Window

logger = logging.getLogger(__name__)

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
    page: Path | None = None,
    test_recording: Path | None = None,
    live_command: str | None = None,
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
    page : Path, optional
        Where an HTML report will lie, if one is made too.
    test_recording : Path, optional
        In place of the one that the bundle's config names; its markers name pictures of `data.stimuli`, too.
    live_command : str, optional
        What follows `minddiffuser live` in the next command; left out, the config of the bundle's name.

    Raises
    ------
    AppError
        There is nothing to evaluate, or another recording than that of a data set.
    """
    bundle = Bundle.load(bundle_folder)
    config = config_of(bundle.meta, bundle_folder)
    if test_recording is not None:
        config = _tested_on(test_recording, config)
    check_retrieval(config, bundle)
    with ExitStack() as stack:
        report = stack.enter_context(progress())
        models = load_models(config.engine.models, config.engine.device)
        dataset = load_dataset(config, data_dir, models, report)
        recording = first_events(dataset.live, limit)
        profile = profile_of(bundle.meta)
        every = cut_windows(recording, config, profile)
        account = rejection(every, config, profile, dataset.stimuli.ids)
        windows = [window for window in every if not window.quality.rejected]
        if not windows:
            raise AppError(
                f"recording {recording.name}: none of its {len(recording.events)} events gives a window to evaluate"
                + (f": {account.text}" if account.markers else "")
            )
        require_pictures(windows, dataset.stimuli)
        features = [bundle.decode([window])[0] for window in windows]
        made_here(config)
        report("starting the engine", 0, 1)
        reconstructor = ready_engine(config.engine, bundle, models)
        report("starting the engine", 1, 1)
        offline = offline_pictures(windows, features, reconstructor, report)
    judges = Judges(models)
    answer: dict[str, Any] = {
        "bundle": str(bundle_folder),
        "config": config.name,
        "data": bundle.meta["data"],
        "overlap": bundle.meta.get("overlap") if test_recording is None else _overlap(dataset),
        "on_training_data": trained_on(bundle, dataset, windows),
        **_about(recording, dataset, config),
        "delay": config.window.delay,
        "rejection": asdict(account),
        "abstention": abstention(features, config, bundle),
        **{key: bundle.meta[key] for key in ("learning_curve", "recording_more") if key in bundle.meta},
        **({"stage2_check": bundle.meta["stage2"]} if "stage2" in bundle.meta else {}),
        "offline": figures(offline, dataset, judges, examples=page is not None),
    }
    if not of_categories(offline):
        answer["checks"] = spurious_checks(offline, features, dataset, models)
    if config.publish.retrieved:
        retrieve = retriever_of(config, bundle, models, dataset.stimuli)
        rest = (dataset.stimuli, mean_training_image(dataset), judges, np.random.default_rng(SCORING_SEED))
        answer["retrieved"] = retrieved_quality(windows, features, retrieve, *rest)
    if live:
        shown = first_events(recording, live_limit)
        received, outcome = await _live(shown, config, bundle, reconstructor, dataset, stop, folder)
        answer["live"] = figures(received, dataset, judges) | {"account": outcome}
        ids = {window.id for window in (windows if shown is recording else usable_windows(shown, config, profile))}
        both = [one for one in offline if one.meta["window_id"] in ids]
        answer["live_equals_offline"] = agreement(both, received, config.publish).to_dict()
    answer["versions"] = versions(FIGURES)
    answer["verdict"] = judged(answer, str(bundle_folder), live_command)
    if not page:
        return Evaluation(answer)
    command = f"minddiffuser evaluate {bundle_folder}" + " --offline" * (not live)
    command += f" --recording {test_recording}" * (test_recording is not None)
    command += f" --limit {limit}" * (limit is not None) + f" --live-limit {live_limit}" * (live_limit is not None)
    pictures = list(trios(answer["offline"].get("examples", ()), offline, dataset.stimuli))
    maps = maps_seen_from(page, bundle_folder)
    text = report_page(answer, pictures, command=command, path=str(bundle_folder), maps=maps)
    return Evaluation(answer, text)


def _tested_on(recording: Path, config: Config) -> Config:
    """Return a bundle's config with another test recording."""
    if config.data.dataset != "recording":
        words = "it goes with bundles that were trained on recordings of one's own"
        raise AppError(f"--recording {recording}: {config.name} was trained on {config.data.dataset}; {words}")
    return config.model_copy(update={"data": config.data.model_copy(update={"live": recording})})


def _overlap(dataset: Dataset) -> dict[str, Any] | None:
    """Return which share of the test recording's pictures the training recordings showed."""
    trained, tested = (
        {event.label for run in side for event in run.events} & set(dataset.stimuli.ids)
        for side in (dataset.train, (dataset.live,))
    )
    return dict(shared_pictures(dataset.stimuli, trained, tested)) if tested else None


def _about(recording: Recording, dataset: Dataset, config: Config) -> dict[str, Any]:
    """Return whose recording it is, and when it was made."""
    counted = None if config.data.dataset == "recording" else str(config.data.subject[0])
    return {
        "participant": config.participant or dataset.subjects.get(dataset.live.name, counted),
        "date": recording.begun and datetime.fromtimestamp(recording.begun, UTC).date().isoformat(),
    }


def judged(answer: Mapping[str, Any], path: str, live_command: str | None = None) -> dict[str, str] | None:
    """Return the verdict on an answer, JSON-able; None where there is none."""
    name = f"{answer.get('config')}.yaml"
    there = (str(file) for file in (Path("configs", name), Path(name)) if config_file(file).is_file())
    found = verdict_of_evaluation(answer, path, live_command or next(there, "CONFIG"))
    return found.to_dict() if found else None


def trained_on(bundle: Bundle, dataset: Dataset, windows: Sequence[Window]) -> bool:
    """Check whether any of the windows to evaluate taught the model that decodes it.

    Pictures that folds held out are decoded by models that never saw them, so windows of the training are no harm.
    """
    labels = {window.event.label for window in windows if window.event is not None}
    return any(_same(run, dataset.live) for run in dataset.train) and not labels <= set(bundle.held_out)


def _same(one: Recording, other: Recording) -> bool:
    """Check whether two recordings hold the same samples, by whatever names their files go."""
    if one is other:
        return True
    pairs = list(zip(one.streams, other.streams, strict=False))
    return bool(pairs) and all(
        a.data.shape == b.data.shape and np.array_equal(a.data, b.data, equal_nan=a.data.dtype.kind == "f")
        for a, b in pairs
    )


def abstention(features: Sequence[Features], config: Config, bundle: Bundle) -> dict[str, Any]:
    """Count the windows that a live session would abstain from; they are scored all the same."""
    asked = config.publish.abstain_below
    least = threshold_of(bundle.meta) if asked is None else asked
    return {"abstain_below": least, "windows": sum(one.confidence < least for one in features)}


def cut_windows(recording: Recording, config: Config, profile: SignalProfile | None) -> list[Window]:
    """Cut a recording as a config says, with the limits and levels of a bundle's profile."""
    return list(windows_of(recording, config.window, config.filters, config.source, config.extra, profile=profile))


def usable_windows(recording: Recording, config: Config, profile: SignalProfile | None = None) -> list[Window]:
    """Cut a recording as `cut_windows` does, and leave out windows that are rejected."""
    return [window for window in cut_windows(recording, config, profile) if not window.quality.rejected]


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
        logger.warning("%s", line)


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
    # Whether a decoder works is told by all windows, as offline, unless the config itself says which are not shown.
    publish = config.publish.model_copy(update={"abstain_below": config.publish.abstain_below or 0.0})
    with tempfile.TemporaryDirectory(prefix="minddiffuser-") as scratch:
        file = Path(scratch) / "recording.npz"
        source, *_ = choose_streams(recording, config.source, config.extra)
        others = (stream for stream in recording.streams if stream is not source)
        # As the markers came: the live session names them itself.
        write_npz(
            with_original_labels(replace(recording, streams=(source, *others))), file
        )  # the replay gives the first a name of its own
        outcome = await run_loopback(
            config.model_copy(
                update={"queue": patient, "broker": broker, "archive": ArchiveSpec(), "publish": publish}
            ),
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
    windows: Sequence[Window], features: Sequence[Features], reconstructor: Reconstructor, report: Progress
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
    """Reconstruct one window; None, with a warning, for one of which a live session would abstain."""
    stages: dict[str, NDArray[np.uint8]] = {}
    if fault := fault_of(features):
        logger.warning("window %s abstained: decoded %s", window.id, fault)
        return None
    final = reconstructor.reconstruct(
        [features], on_preview=lambda pictures: stages.update(preview=pictures[0].pixels)
    )[0]
    if final.fault:
        logger.warning("window %s abstained: %s", window.id, final.fault)
        return None
    stages["picture"] = final.pixels
    event = {"label": window.event.label} if window.event else None
    meta = {"window_id": window.id, "event": event, "categories": features.categories, "seed": str(final.seed)}
    return Received(meta, stages)


def of_categories(received: Sequence[Received]) -> bool:
    """Check whether categories were decoded, and no pictures."""
    return bool(received) and all(one.meta.get("categories") for one in received)


def figures(
    received: Sequence[Received], dataset: Dataset, judges: Judges, *, examples: bool = False
) -> dict[str, Any]:
    """Return the figure that fits the data: AUC for categories, scores of the pictures where each was one's own."""
    if of_categories(received):
        return {"n": len(received), **category_figures(received)}
    found = picture_quality(received, dataset.stimuli, mean_training_image(dataset), judges, examples=examples)
    return found or {"figures": f"of {len(received)} windows fewer than two are of a picture known: nothing to score"}


def category_figures(received: Sequence[Received]) -> dict[str, Any]:
    """AUC (mean over categories, one against the rest; chance 0.5) and accuracy of single windows, beside chance.

    Windows of no category of the decoder's are left out and counted ('unknown').
    Each with its `<score>_interval` (95 %, bootstrap over windows within each category) and `<score>_p` (categories of
    windows permuted).
    """
    names, n = sorted(received[0].meta["categories"]), len(received)
    if line := mismatch((one.label for one in received), names, "windows"):
        logger.warning("%s", line)
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
        f"{name}_interval": metrics.category_interval(lambda picks: score(picks, rows[picks]), rows, rng),
        f"{name}_p": round(metrics.p_value(observed, null), 4),
    }


def picture_quality(
    received: Sequence[Received],
    stimuli: StimulusTable,
    mean_image: NDArray[np.uint8],
    judges: Judges | None = None,
    *,
    examples: bool = False,
) -> dict[str, Any]:
    """Score received pictures whose original is known; empty if there are fewer than two of those.

    `examples` asks for those that a report shows, too.
    """
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
    return found | ({"examples": choose(known, shown, judge)} if examples else {})


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
