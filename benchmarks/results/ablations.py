"""What each part is worth: the demo's setup with one thing changed, beside the full setup on the same pictures."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results.ceilings import ceilings
from benchmarks.results.lab import PAPER, SCORES, Floats, Lab, Made, changed, label_of
from benchmarks.results.setups import FULL
from decoder.evaluation import metrics
from engine.composing.pack import load_pack
from minddiffuser.training.data import CALIBRATION_SEED
from stream.types.recording import Recording
from stream.types.windows import Window

SEED = 20261125
PLAIN = "the demo without its prior of structure"
"""What variants that are trained anew are held against: the prior takes minutes to train, for each of them."""
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


def stages(lab: Lab) -> Iterator[tuple[str, Made]]:
    """Leave out stage 2, z, both, or parts of stage 2."""
    full = lab.full
    yield FULL, full
    yield "without stage 2", Made(full.own, full.first, full.first)
    decoded = [replace(one, z=None) for one in lab.decoded()]
    without = lab.make(decoded, lab.windows, lab.config.engine, lab.bundle)
    yield "without z", without
    yield "without z and stage 2", Made(without.own, without.first, without.first)
    decoded = lab.decoded()
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
    yield "without the prior of structure", lab.plain


def modes(lab: Lab) -> Iterator[tuple[str, Made]]:
    """Stage 2 by the way its gradients take: few pictures, as exact takes a minute for each."""
    yield f"fast ({FULL})", lab.full
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
    yield f"{PLAIN}: s of blocks {_listed(own)}", lab.plain
    for n in range(1, len(own)):
        yield f"s of blocks {_listed(own[:n])}", lab.retrained({"decoder.blocks": list(own[:n])})


def text(lab: Lab) -> Iterator[tuple[str, Made]]:
    """Decode c token by token, or from the embedding through a prior."""
    yield f"{PLAIN}: c by {lab.config.decoder.text_embedding_from}", lab.plain
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
    yield FULL, lab.full
    windows = lab.cut(lab.config, _repeated(lab))
    of: dict[str, list[Window]] = {label: [] for label in lab.labels}
    for window in windows:
        of[label_of(window)].append(window)
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
    yield f"{PLAIN}: {len(lab.windows[0].channels)} channels", lab.plain
    for n, names in FEW_CHANNELS.items():
        yield f"{n} channels", lab.retrained({"filters.channels": names.split()})


def windows(lab: Lab) -> Iterator[tuple[str, Made]]:
    """Cut windows shorter: the picture comes as much sooner."""
    yield f"{PLAIN}: {1000 * lab.config.window.tmax:.0f} ms", lab.plain
    for tmax in WINDOWS:
        yield f"{1000 * tmax:.0f} ms", lab.retrained({"window.tmax": tmax})


def pictures(lab: Lab) -> Iterator[tuple[str, Made]]:
    """Train on fewer pictures: a second each, so 225 are a calibration of four minutes."""
    yield f"{PLAIN}: {lab.config.data.pictures} training pictures", lab.plain
    for n in TRAINING:
        yield f"{n} training pictures", lab.retrained({}, n)


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
