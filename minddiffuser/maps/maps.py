"""`minddiffuser maps`: which channels and latencies carry each feature, as figures and one page."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decoder.data.feature_registry import feature_of
from decoder.data.splits import category_folds
from decoder.data.usable import usable
from decoder.evaluation.patterns import Patterns, patterns
from decoder.evaluation.timecourse import Decodability, Onset, Smear, decodability, edges, onset, sliding
from decoder.features import block_of
from decoder.models.bundle import WHOLE, Bundle
from decoder.models.embedding import linear_part
from decoder.preprocessing.units import alike
from minddiffuser.cache import cache_dir
from minddiffuser.config.spec import Config
from minddiffuser.maps.smear import smear_of
from minddiffuser.training.training import by_recording, origin_of
from stream.types.progress import Progress
from stream.types.recording import choose_streams

if TYPE_CHECKING:
    from decoder.data.stimuli import StimulusTable
    from decoder.datasets import Dataset
    from decoder.features import Features
    from engine.models.loading import Models
    from stream.types.windows import Channels, Window

logger = logging.getLogger(__name__)

PERMUTATIONS = 100
SEED = 20261125
FOLDS = 5
REGION_MARK = ":"
"""Voxels named 'V1v:00012' belong to region V1v."""
EARLIEST_S = 0.04
"""Nothing recorded from a cortex tells of a picture sooner: the first answer of V1 takes 40 to 60 ms in people."""
Edges = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """Everything the figures and the page show.

    Attributes
    ----------
    channels : Channels
    times : ndarray, shape (n_times,)
        Seconds from the event.
    patterns : dict of str to Patterns
        By feature: 'c', 'z', 's1', ...; category decoders: 'category'.
    places : tuple of str
        Names of the parts that were decoded from: latencies, or regions.
    centres : ndarray, shape (n_parts,), or None
        Seconds; None for regions.
    decodability : Decodability
    n_windows, n_pictures : int
    split : str
        How held-out samples were chosen.
    permuted : str
        What was permuted.
    edges : (ndarray, ndarray) or None
        Seconds: first and last sample of each latency's window; None for regions.
    smear : Smear
        Of the filters before the windows.
    drive : dict of str to Patterns
        By group of picture features, how strongly the bundle's encoding model has it drive each channel; empty without
        a model.
    explained : float or None
        Share of the windows' variance that the model predicts while their pictures are held out, mean over responses.
    """

    channels: Channels
    times: NDArray[np.float64]
    patterns: dict[str, Patterns]
    places: tuple[str, ...]
    centres: NDArray[np.float64] | None
    decodability: Decodability
    n_windows: int
    n_pictures: int
    split: str
    permuted: str = "pictures"
    edges: Edges | None = None
    smear: Smear = field(default_factory=Smear)
    drive: dict[str, Patterns] = field(default_factory=dict)
    explained: float | None = None

    def onset(self, row: int) -> Onset | None:
        """Return when the feature of a row of `decodability` begins to be told; None for regions and for never."""
        return self.edges and onset(self.decodability.significant[row], *self.edges, self.smear)

    def too_early(self) -> list[str]:
        """Return a line for each feature that is told before anything in the brain can tell it."""
        lines = []
        for row, name in enumerate(self.decodability.features):
            if (found := self.onset(row)) is not None and found.told_by <= EARLIEST_S:
                lines.append(
                    f"{name} is told by {1e3 * found.told_by:.0f} ms after the picture, and the cortex takes longer "
                    f"than {1e3 * EARLIEST_S:.0f} ms: markers come late, or the signal holds something of the picture "
                    "that is not the brain's (a trigger, a flash on a light sensor)"
                )
        return lines

    def summary(self) -> dict[str, Any]:
        """Return the figures by feature; JSON-able."""
        found = self.decodability
        out: dict[str, Any] = {}
        for row, name in enumerate(found.features):
            best = int(found.score[row].argmax())
            one: dict[str, Any] = {"best": round(float(found.score[row, best]), 4), "best_at": self.places[best]}
            if self.centres is not None:
                begun = self.onset(row)
                one["best_s"] = round(float(self.centres[best]), 4)
                one["rise_s"] = None if begun is None else round(begun.told_by, 4)
                one["not_before_s"] = None if begun is None or begun.not_before is None else round(begun.not_before, 4)
                if name in self.patterns:
                    one["pattern_peak_s"] = round(self.patterns[name].peak(self.times), 4)
            out[name] = one
        return out


def compute_maps(bundle: Bundle, config: Config, dataset: Dataset, models: Models, report: Progress) -> Maps:
    """Compute patterns of the bundle's decoder, and when or where each feature can be decoded."""
    from decoder.data.training_set import gather
    from decoder.datasets.captions import describe
    from stream.quality.signal_profile import profile_of

    by_run = by_recording(dataset.train, config, report, profile_of(bundle.meta))
    arranged = [(run, bundle.in_bundle_order(window)) for run, cut_from in by_run for window in cut_from]
    run_of = {id(window): run for run, window in arranged}
    windows = [window for window, _ in usable([window for _, window in arranged], dataset.stimuli.ids)[0]]
    shown = dataset.stimuli.select(sorted({window.event.label for window in windows if window.event is not None}))
    origins = [origin_of(run_of[id(window)], dataset) for window in windows]
    samples = gather(windows, shown, config.decoder, origins=origins)
    data = np.stack([window.data for window in windows])
    by_feature = feature_patterns(bundle, windows, data, report)
    rng = np.random.default_rng(SEED)
    if config.decoder.category is None:
        targets = _targets(describe(shown, models, dataset.vocabulary), models, config, report)
        splits, runs = samples.folds(FOLDS, rng), None
        split = f"{len(splits)} folds by {config.decoder.split}: no picture on both sides"
    else:
        targets = {"category": np.eye(len(shown), dtype=np.float32)}
        runs = samples.runs
        splits = category_folds(samples.rows, runs, config.decoder.category.cv_folds)
        split = f"{len(splits)} {'runs' if len(np.unique(runs)) > 1 else 'stretches of blocks'}, each held out once"
    places, centres, cut_at, parts = _parts(bundle.channels, data, samples.times)
    report("decoding by latency or region", 0, 1)
    found = decodability(
        parts,
        targets,
        samples.rows,
        rng,
        splits=splits,
        groups=samples.groups,
        runs=runs,
        n_permutations=PERMUTATIONS,
    )
    report("decoding by latency or region", 1, 1)
    drive, explained = encoding_maps(bundle)
    permuted = "pictures" if runs is None else "blocks of one category, within their recording"
    return Maps(
        bundle.channels,
        samples.times,
        by_feature,
        places,
        centres,
        found,
        n_windows=len(windows),
        n_pictures=len(shown),
        split=split,
        permuted=permuted,
        edges=cut_at,
        smear=smear_of(config.filters, choose_streams(dataset.train[0], config.source, config.extra)[0].sfreq),
        drive=drive,
        explained=explained,
    )


def encoding_maps(bundle: Bundle) -> tuple[dict[str, Patterns], float | None]:
    """Return what each group of features drives by the bundle's encoding model, and what the model explains.

    Nothing without one. A model of responses needs no inversion: what it predicts is the pattern itself.
    """
    base = linear_part(bundle.models[WHOLE])
    if base is None or base.evidence is None:
        return {}, None
    evidence = base.evidence
    at = (evidence.binning > 0).astype(np.float64)
    strengths = [values.astype(np.float64) @ at.T for values in evidence.drive]
    drive = {
        name: Patterns(strength[None], np.ones(1), strength)
        for name, strength in zip(evidence.maps, strengths, strict=True)
    }
    return drive, float(evidence.explained.mean())


def feature_patterns(
    bundle: Bundle, windows: list[Window], data: NDArray[np.float32], report: Progress
) -> dict[str, Patterns]:
    """Compute the pattern of each feature that the bundle's model, fitted on everything, decodes."""
    report("patterns", 0, 1)
    decoded = bundle.models[WHOLE].predict(windows, alike(bundle.channels, data))
    out = {name: patterns(data, values) for name, values in _numbers(decoded).items() if np.ptp(values, axis=0).any()}
    report("patterns", 1, 1)
    return out


def _numbers(decoded: list[Features]) -> dict[str, NDArray[np.float32]]:
    """Return decoded features as one row a window, by name."""
    first = decoded[0]
    if first.categories:
        odds = [np.log(np.clip(list(one.categories.values()), 1e-6, 1)) for one in decoded]
        return {"category": np.asarray(odds, np.float32)}
    return {name: np.stack([_decoded(one, name) for one in decoded]) for name in first.names if is_mapped(name)}


def is_mapped(name: str) -> bool:
    """Return whether maps show a decoded feature."""
    feature = feature_of(name)
    return feature is not None and feature.mapped


def _decoded(features: Features, name: str) -> NDArray[np.float32]:
    """Return a feature's decoded numbers; of a block of structure, its best units."""
    values, block = features.values(name), block_of(name)
    assert values is not None, name
    return values if block is None else values[features.s[block].mask]


def _targets(
    shown: StimulusTable, models: Models, config: Config, report: Progress
) -> dict[str, NDArray[np.floating[Any]]]:
    from decoder.data.targets import compute_targets

    spec = config.decoder
    found = compute_targets(
        shown, models, features=spec.features, blocks=spec.blocks, cache=cache_dir() / "targets", progress=report
    )
    return {name: value for name, value in found.arrays().items() if is_mapped(name)}


def regions(channels: Channels) -> tuple[str, ...]:
    """Return each channel's region: what stands before ':' in its name, or the channels' kind if none has one."""
    if all(REGION_MARK in name for name in channels.names):
        return tuple(name.split(REGION_MARK)[0] for name in channels.names)
    return channels.kinds


def _parts(
    channels: Channels, data: NDArray[np.float32], times: NDArray[np.float64]
) -> tuple[tuple[str, ...], NDArray[np.float64] | None, Edges | None, list[NDArray[np.float32]]]:
    """Cut windows into latencies, or, where a window is one vector, into regions."""
    spread = data.std(axis=(0, 2), keepdims=True)
    data = np.divide(data, spread, out=np.zeros_like(data), where=spread > 0)
    if len(times) > 1:
        centres, binning = sliding(times)
        names = tuple(f"{centre:.3f} s" for centre in centres)
        return names, centres, edges(times, binning), list((data @ binning).transpose(2, 0, 1))
    own = np.asarray(regions(channels))
    names = tuple(dict.fromkeys(own.tolist()))
    return names, None, None, [np.ascontiguousarray(data[:, own == name, 0]) for name in names]
