"""`minddiffuser maps`: which channels and latencies carry each feature, as figures and one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decoder.bundle import WHOLE, Bundle
from decoder.patterns import Patterns, patterns
from decoder.splits import category_folds
from decoder.timecourse import Decodability, decodability, rise, sliding
from decoder.units import alike
from decoder.usable import usable
from minddiffuser.cache import cache_dir
from minddiffuser.config import Config, config_of
from minddiffuser.console import Report, progress
from minddiffuser.training import by_recording, origin_of
from stream.atomic import kept

if TYPE_CHECKING:
    from decoder.datasets import Dataset
    from decoder.features import Features
    from decoder.stimuli import StimulusTable
    from engine.models import Models
    from stream.windows import Channels, Window

PERMUTATIONS = 100
SEED = 20261125
FOLDS = 5
REGION_MARK = ":"
"""Voxels named 'V1v:00012' belong to region V1v."""


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

    def summary(self) -> dict[str, Any]:
        """Give the figures by feature; JSON-able."""
        found = self.decodability
        out: dict[str, Any] = {}
        for row, name in enumerate(found.features):
            best = int(found.score[row].argmax())
            one: dict[str, Any] = {"best": round(float(found.score[row, best]), 4), "best_at": self.places[best]}
            if self.centres is not None:
                onset = rise(found.significant[row], self.centres)
                one |= {"best_s": round(float(self.centres[best]), 4), "rise_s": onset and round(onset, 4)}
                if name in self.patterns:
                    one["pattern_peak_s"] = round(self.patterns[name].peak(self.times), 4)
            out[name] = one
        return out


def run_maps(bundle_folder: Path, data_dir: Path | None, out: Path | None) -> dict[str, Any]:
    """Compute maps of a bundle on its training recordings, and write figures and a page.

    Parameters
    ----------
    bundle_folder : Path
    data_dir : Path or None
        Folder of recorded data sets.
    out : Path or None
        Folder for the files; None: beside the bundle, its name with '-maps'.

    Returns
    -------
    answer : dict
        'page', 'files', 'data', 'features', 'chance'.
    """
    from engine.models import load_models
    from minddiffuser.data import load_dataset
    from minddiffuser.mappage import write_page

    bundle = Bundle.load(bundle_folder)
    config = config_of(bundle.meta, bundle_folder)
    with progress() as report:
        models = load_models(config.engine.models, config.engine.device)
        bundle.check_feature_space(models.feature_space)
        dataset = load_dataset(config, data_dir, models, report)
        maps = compute_maps(bundle, config, dataset, models, report)
    folder = out or bundle_folder.parent / f"{bundle_folder.name}-maps"
    command = f"minddiffuser maps {bundle_folder}" + (f" --data {data_dir}" if data_dir else "")
    page, files = kept(folder, lambda place: write_page(maps, bundle, place, command))
    return {
        "page": str(page),
        "files": [str(file) for file in files],
        "data": bundle.meta["data"],
        "n_windows": maps.n_windows,
        "n_pictures": maps.n_pictures,
        "split": maps.split,
        "features": maps.summary(),
        "chance": {
            "score": 0.0,
            "family_wise_threshold": round(maps.decodability.threshold, 4),
            "n_permutations": maps.decodability.n_permutations,
        },
    }


def compute_maps(bundle: Bundle, config: Config, dataset: Dataset, models: Models, report: Report) -> Maps:
    """Compute patterns of the bundle's decoder, and when or where each feature can be decoded."""
    from decoder.datasets.captions import describe
    from decoder.samples import gather

    by_run = by_recording(dataset.train, config, report)
    arranged = [(run, bundle.arranged(window)) for run, cut_from in by_run for window in cut_from]
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
    places, centres, parts = _parts(bundle.channels, data, samples.times)
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
    )


def feature_patterns(
    bundle: Bundle, windows: list[Window], data: NDArray[np.float32], report: Report
) -> dict[str, Patterns]:
    """Compute the pattern of each feature that the bundle's model, fitted on everything, decodes."""
    report("patterns", 0, 1)
    decoded = bundle.models[WHOLE].predict(windows, alike(bundle.channels, data))
    out = {name: patterns(data, values) for name, values in _numbers(decoded).items() if np.ptp(values, axis=0).any()}
    report("patterns", 1, 1)
    return out


def _numbers(decoded: list[Features]) -> dict[str, NDArray[np.float32]]:
    """Give decoded features as one row a window, by name."""
    first = decoded[0]
    if first.categories:
        odds = [np.log(np.clip(list(one.categories.values()), 1e-6, 1)) for one in decoded]
        return {"category": np.asarray(odds, np.float32)}
    out: dict[str, NDArray[np.float32]] = {}
    if first.c.size:
        out["c"] = np.stack([one.c.ravel() for one in decoded])
    if first.z is not None:
        out["z"] = np.stack([np.ravel(one.z) for one in decoded if one.z is not None])
    for block, layer in sorted(first.s.items()):
        out[f"s{block}"] = np.stack([one.s[block].values[layer.mask] for one in decoded])
    return out


def _targets(
    shown: StimulusTable, models: Models, config: Config, report: Report
) -> dict[str, NDArray[np.floating[Any]]]:
    from decoder.targets import compute_targets

    spec = config.decoder
    found = compute_targets(
        shown, models, features=spec.features, blocks=spec.blocks, cache=cache_dir() / "targets", progress=report
    )
    given = {"c": found.c, "z": found.z, **{f"s{block}": found.s[block] for block in sorted(found.s)}}
    return {name: value for name, value in given.items() if value is not None}


def regions(channels: Channels) -> tuple[str, ...]:
    """Give each channel's region: what stands before ':' in its name, or the channels' kind if none has one."""
    if all(REGION_MARK in name for name in channels.names):
        return tuple(name.split(REGION_MARK)[0] for name in channels.names)
    return channels.kinds


def _parts(
    channels: Channels, data: NDArray[np.float32], times: NDArray[np.float64]
) -> tuple[tuple[str, ...], NDArray[np.float64] | None, list[NDArray[np.float32]]]:
    """Cut windows into latencies, or, where a window is one vector, into regions."""
    spread = data.std(axis=(0, 2), keepdims=True)
    data = np.divide(data, spread, out=np.zeros_like(data), where=spread > 0)
    if len(times) > 1:
        centres, binning = sliding(times)
        return tuple(f"{centre:.3f} s" for centre in centres), centres, list((data @ binning).transpose(2, 0, 1))
    own = np.asarray(regions(channels))
    names = tuple(dict.fromkeys(own.tolist()))
    return names, None, [np.ascontiguousarray(data[:, own == name, 0]) for name in names]
