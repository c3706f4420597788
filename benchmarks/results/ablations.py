"""What each part is worth: the demo's setup with one thing changed, beside the full setup on the same pictures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results.setups import ROOT, Setup
from decoder.data.targets import Targets, compute_targets
from decoder.evaluation import metrics
from decoder.evaluation.metric_registry import PICTURE_METRICS, POSE_METRICS, picture_scores
from decoder.evaluation.pose import pose, pose_errors, pose_of_mask
from decoder.features import Features, LayerTarget
from decoder.models.bundle import Bundle
from engine.composing.compose import alpha_of, load_test_stimuli
from engine.composing.pack import load_pack
from engine.models.loading import load_models
from engine.reconstructor import Reconstructor
from engine.spec import EngineSpec
from minddiffuser.cache import made_once
from minddiffuser.config.spec import Config, load_config
from minddiffuser.console import progress
from minddiffuser.evaluation.perception import Judges
from minddiffuser.live.engines import ready_engine
from minddiffuser.training.data import CALIBRATION_SEED, load_dataset
from minddiffuser.training.training import train
from minddiffuser.workflows.demo import prepare, training_key
from minddiffuser.workflows.evaluate import first_events, usable_windows
from stream.types.recording import Recording
from stream.types.windows import Window

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]

SEED = 20261125
FULL = "the demo as it is"
PLAIN = "the demo without its prior of structure"
"""What variants that are trained anew are held against: the prior takes minutes to train, for each of them."""
UNPRIORED = {"decoder.structure_prior": None, "data.image_bank": None}
SCORES = {
    key: {**PICTURE_METRICS, **POSE_METRICS}[key].short
    for key in ("pixcorr", "ssim", "two_way", "two_way_features", "two_way_clip", "concept_top5", *POSE_METRICS)
}
FEW_CHANNELS = {
    32: "Fp1 Fp2 F7 F3 F4 F8 FC5 FC1 FC2 FC6 T7 C3 Cz C4 T8 CP5 CP1 CP2 CP6 P7 P3 Pz P4 P8 PO7 PO3 POz PO4 PO8 O1 Oz "
    "O2",
    16: "F3 F4 C3 Cz C4 P7 P3 Pz P4 P8 PO7 PO8 POz O1 Oz O2",
    8: "Pz P7 P8 PO7 PO8 O1 Oz O2",
}
"""Caps that are sold: 32 over the whole head, 16 and 8 with most electrodes over the visual cortex."""
TRAINING = (225, 900)
WINDOWS = (0.15, 0.3)
REPEATS = (1, 4, 20)
BANK = 4000
EXACT_PICTURES, ONESTEP_PICTURES = 3, 30
PAPER = {"iterations": 300, "learning_rate": 0.01, "decay": 0.999}


@dataclass(frozen=True, slots=True)
class Made:
    """Pictures of one variant: which of the lab's pictures they should show, and both stages."""

    own: NDArray[np.intp]
    first: Pixels
    final: Pixels


class Lab:
    """The simulated participant of a config, the decoder trained on it, and what its test pictures truly show.

    Parameters
    ----------
    config_file : Path
    n_pictures : int
        Test windows, the first of the run.
    """

    def __init__(self, config_file: Path, n_pictures: int) -> None:
        self.config = load_config(config_file)
        self.models = load_models(self.config.engine.models, self.config.engine.device)
        with progress() as report:
            self.dataset = load_dataset(self.config, None, self.models, report)
        self.live = first_events(self.dataset.live, n_pictures)
        self.bundle = prepare(config_file).bundle  # trained once for all groups
        self.windows = self.cut(self.config)
        self.labels = tuple(sorted({_label(window) for window in self.windows}))
        self.shown = self.dataset.stimuli.select(self.labels)
        self.judge = Judges(self.models).against(self.shown.images, self.shown.concepts)
        pack, named = load_pack(), {stimulus.name: stimulus for stimulus in load_test_stimuli()}
        self.true = [pose_of_mask(alpha_of(pack, named[label])) for label in self.labels]

    @classmethod
    def of(cls, setup: Setup) -> "Lab":
        """Open the lab of a setup of ablations."""
        assert setup.limit is not None
        return cls(ROOT / "configs" / f"{setup.config}.yaml", setup.limit)

    def cut(self, config: Config, recording: Recording | None = None) -> list[Window]:
        """Cut the test run as a config says."""
        return usable_windows(recording or self.live, config)

    def make(self, features: Sequence[Features], windows: Sequence[Window], spec: EngineSpec, bundle: Bundle) -> Made:
        """Reconstruct decoded windows."""
        engine: Reconstructor = ready_engine(spec, bundle, self.models)
        first: list[Pixels] = []
        final = [
            engine.reconstruct([one], on_preview=lambda made: first.append(made[0].pixels))[0].pixels
            for one in features
        ]
        return Made(self.shown.rows(_label(window) for window in windows), np.stack(first), np.stack(final))

    def full(self) -> Made:
        """Make the pictures of the setup as it is."""
        return self.make(self.bundle.decode(self.windows), self.windows, self.config.engine, self.bundle)

    def plain(self) -> Made:
        """Make the pictures of the decoder without the prior of structure, trained once for all groups."""
        config = changed(self.config, UNPRIORED)

        def make(folder: Path) -> None:
            train(config, self.dataset, self.models).save(folder / "bundle")

        bundle = Bundle.load(made_once(f"{self.config.name}-plain", training_key(config, self.models), make) / "bundle")
        return self.make(bundle.decode(self.windows), self.windows, config.engine, bundle)

    def retrained(self, changes: Mapping[str, Any], n_training: int | None = None) -> Made:
        """Train anew without the prior of structure and with parts of the config changed; the same windows."""
        config = changed(self.config, {**UNPRIORED, **changes})
        trained_on = tuple(first_events(run, n_training) for run in self.dataset.train)
        bundle = train(config, replace(self.dataset, train=trained_on), self.models)
        windows = self.cut(config)
        return self.make(bundle.decode(windows), windows, config.engine, bundle)

    def scores(self, own: NDArray[np.intp], pictures: Pixels) -> dict[str, Floats]:
        """Score pictures one by one, held against the true ones; each (n,), NaN where a figure has no orientation."""
        found = picture_scores(self.shown.images, own, pictures) | self.judge(own, pictures)
        found |= pose_errors([pose(picture) for picture in pictures], [self.true[row] for row in own])
        return {name: found[name] for name in SCORES}


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a config with some keys changed, by their paths ('decoder.blocks')."""
    raw = config.own()
    for path, value in changes.items():
        *sections, key = path.split(".")
        part = raw
        for section in sections:
            part = part.setdefault(section, {})
        part[key] = value
    return Config.model_validate(raw)


def _label(window: Window) -> str:
    assert window.event is not None
    return window.event.label


def stages(lab: Lab) -> Iterator[tuple[str, Made]]:
    """Leave out stage 2, z, both, or parts of stage 2."""
    full = lab.full()
    yield FULL, full
    yield "without stage 2", Made(full.own, full.first, full.first)
    decoded = [replace(one, z=None) for one in lab.bundle.decode(lab.windows)]
    without = lab.make(decoded, lab.windows, lab.config.engine, lab.bundle)
    yield "without z", without
    yield "without z and stage 2", Made(without.own, without.first, without.first)
    decoded = lab.bundle.decode(lab.windows)
    begun = [replace(one, structure_latent=None) for one in decoded]
    yield "stage 2 from stage 1's picture", lab.make(begun, lab.windows, lab.config.engine, lab.bundle)
    for name, settings in (
        ("without the last UNet calls", {"renoise_strength": 0.0}),
        ("in one round", {"refinement_rounds": 1}),
        ("of one draw", {"candidates": 1}),
        ("without guidance", {"guidance": 1.0}),
    ):
        spec = changed(lab.config, {f"engine.structure.{key}": value for key, value in settings.items()}).engine
        yield name, lab.make(decoded, lab.windows, spec, lab.bundle)
    yield "without the prior of structure", lab.plain()


def modes(lab: Lab) -> Iterator[tuple[str, Made]]:
    """Stage 2 by the way its gradients take: few pictures, as exact takes a minute for each."""
    yield f"fast ({FULL})", lab.full()
    structure = lab.config.engine.structure
    for mode, n, more in (("onestep", ONESTEP_PICTURES, {}), ("exact", EXACT_PICTURES, PAPER)):
        windows = lab.windows[:n]
        spec = structure.model_copy(update={"mode": mode, **more})
        engine = lab.config.engine.model_copy(update={"structure": spec})
        steps = f", {spec.iterations} steps, {len(windows)} pictures"
        yield f"{mode}{steps}", lab.make(lab.bundle.decode(windows), windows, engine, lab.bundle)


def blocks(lab: Lab) -> Iterator[tuple[str, Made]]:
    """Decode s from fewer CLIP blocks."""
    own = lab.config.decoder.blocks
    yield f"{PLAIN}: s of blocks {_listed(own)}", lab.plain()
    for n in range(1, len(own)):
        yield f"s of blocks {_listed(own[:n])}", lab.retrained({"decoder.blocks": list(own[:n])})


def text(lab: Lab) -> Iterator[tuple[str, Made]]:
    """Decode c token by token, or from the embedding through a prior."""
    yield f"{PLAIN}: c by {lab.config.decoder.text_embedding_from}", lab.plain()
    prior = {
        "decoder.features": [*lab.config.decoder.features, "e"],
        "decoder.text_embedding_from": "embedding",
        "decoder.family": "ridge",
    }
    yield "c from the prior, learned from the pictures shown", lab.retrained(prior)
    yield (
        f"c from the prior, learned from {BANK:,} captioned pictures",
        lab.retrained({**prior, "data.image_bank": BANK}),
    )


def repeats(lab: Lab) -> Iterator[tuple[str, Made]]:
    """Average several presentations before they are decoded, by the decoder trained on single ones."""
    yield FULL, lab.full()
    windows = lab.cut(lab.config, _repeated(lab))
    of: dict[str, list[Window]] = {label: [] for label in lab.labels}
    for window in windows:
        of[_label(window)].append(window)
    for n in REPEATS:
        means = [
            replace(mine[0], data=np.mean([window.data for window in mine[:n]], axis=0, dtype=np.float32))
            for mine in of.values()
        ]
        yield (
            f"mean of {n}, a run of its own" if n > 1 else "1, the same run",
            lab.make(lab.bundle.decode(means), means, lab.config.engine, lab.bundle),
        )


def _repeated(lab: Lab) -> Recording:
    """Record the participant again while the test pictures are shown 20 times each."""
    from decoder.simulation.eeg import Participant
    from engine.composing.compose import compose, images
    from stream.files.registry import read

    spec = lab.config.data
    calibration = compose(load_pack(), spec.pictures, CALIBRATION_SEED + spec.seed)
    meanings = lab.models.embed_texts([stimulus.concept for stimulus in calibration])
    participant = Participant("eeg", spec.preset, spec.seed, images(calibration), meanings)
    shown = lab.shown
    raw, _ = participant.record(
        *(shown.images, lab.models.embed_texts(list(shown.concepts)), list(shown.ids)),
        run=2,
        repeats=max(REPEATS),
        soa=spec.soa,
    )
    file = Path("repeated_raw.fif")
    raw.save(file, fmt="single", overwrite=True, verbose="error")
    return read(file)


def channels(lab: Lab) -> Iterator[tuple[str, Made]]:
    """Keep fewer channels, for training too."""
    yield f"{PLAIN}: {len(lab.windows[0].channels)} channels", lab.plain()
    for n, names in FEW_CHANNELS.items():
        yield f"{n} channels", lab.retrained({"filters.channels": names.split()})


def windows(lab: Lab) -> Iterator[tuple[str, Made]]:
    """Cut windows shorter: the picture comes as much sooner."""
    yield f"{PLAIN}: {1000 * lab.config.window.tmax:.0f} ms", lab.plain()
    for tmax in WINDOWS:
        yield f"{1000 * tmax:.0f} ms", lab.retrained({"window.tmax": tmax})


def pictures(lab: Lab) -> Iterator[tuple[str, Made]]:
    """Train on fewer pictures: a second each, so 225 are a calibration of four minutes."""
    yield f"{PLAIN}: {lab.config.data.pictures} training pictures", lab.plain()
    for n in TRAINING:
        yield f"{n} training pictures", lab.retrained({}, n)


def ceilings(lab: Lab) -> Iterator[tuple[str, Made]]:
    """Put true features in the place of decoded ones, one at a time and all: what is lost before the engine, and in it.

    True structure has the decoder's masks, and stage 2 begins at stage 1's picture: the latent that goes with decoded
    structure is itself decoded.
    """
    full = lab.full()
    yield FULL, full
    yield "chance: the picture of another window", Made(full.own, full.first, np.roll(full.final, 1, axis=0))
    known = sorted({event.label for run in lab.dataset.train for event in run.events} & set(lab.dataset.stimuli.ids))
    mean = np.round(lab.dataset.stimuli.select(known).images.mean(axis=0, dtype=np.float64)).astype(np.uint8)
    constant = np.repeat(mean[None], len(full.own), axis=0)
    yield "baseline: the mean image", Made(full.own, constant, constant)
    spec, decoded = lab.config.decoder, lab.bundle.decode(lab.windows)
    true = compute_targets(lab.shown, lab.models, features=spec.features, blocks=spec.blocks)
    for names in (*((name,) for name in spec.features), spec.features):
        features = [with_truth(one, true, row, names) for one, row in zip(decoded, full.own, strict=True)]
        yield f"true {', '.join(names)}", lab.make(features, lab.windows, lab.config.engine, lab.bundle)


def with_truth(decoded: Features, true: Targets, row: int, names: Sequence[str]) -> Features:
    """Return decoded features, of which some ('c', 'z', 'e', 's') are a picture's true ones."""
    found: dict[str, Any] = {name: values[row] for name, values in true.numbers().items() if name in names}
    if "s" in names:
        blocks = {
            block: LayerTarget(np.where(one.mask, true.s[block][row], 0).astype(np.float32), one.mask)
            for block, one in decoded.s.items()
        }
        found |= {"s": blocks, "structure_latent": None}
    return replace(decoded, **found)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)


GROUPS: dict[str, Callable[[Lab], Iterator[tuple[str, Made]]]] = {
    made.__name__: made for made in (stages, modes, blocks, text, repeats, channels, windows, pictures, ceilings)
}


def compare(lab: Lab, group: str) -> list[dict[str, Any]]:
    """Score the variants of a group, each beside the first on the same pictures.

    Returns
    -------
    list of dict
        'name', 'n'; 'values' and 'intervals' (95 %, bootstrap over pictures) by score, and 'differences' from the
        first variant: 'mean' and its paired 'interval'.
    """
    rows: list[dict[str, Any]] = []
    base: dict[int, dict[str, float]] = {}
    for name, made in GROUPS[group](lab):
        scores = lab.scores(made.own, made.final)
        if not rows:
            base = {own: {key: scores[key][k] for key in SCORES} for k, own in enumerate(made.own.tolist())}
        full = {key: np.array([base.get(k, {}).get(key, np.nan) for k in made.own.tolist()]) for key in SCORES}
        rng = np.random.default_rng(SEED)
        row: dict[str, Any] = {"name": name, "n": len(made.own), "values": {}, "intervals": {}, "differences": {}}
        for key in SCORES:
            row["values"][key], row["intervals"][key] = _mean(scores[key], rng)
            mean, interval = _mean(scores[key] - full[key], rng)
            if rows:
                row["differences"][key] = {"mean": mean, "interval": interval}
        rows.append(row)
    return rows


def _mean(values: Floats, rng: np.random.Generator) -> tuple[float | None, list[float] | None]:
    """Mean and interval of those that are numbers; None where there are fewer than two."""
    known = values[np.isfinite(values)]
    if len(known) < 2:
        return None, None
    return round(float(known.mean()), 4), [round(bound, 4) for bound in metrics.bootstrap_interval(known, rng)]
