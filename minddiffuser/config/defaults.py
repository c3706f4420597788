"""What a config starts from, by what is recorded: it only says what differs.

What does not depend on the data are the defaults of `EngineSpec`, `DecoderSpec` and the other parts. The rest is here,
and is laid under a config of a simulated participant or of one's own recordings. Data sets that others published come
prepared, each in its own way, and their configs say all themselves.

Settings were chosen on simulated participants, on other pictures than any figure is of (docs/notebook).
"""

from collections.abc import Mapping
from typing import Any

from stream.lsl.metadata import NO_TYPE

Tree = dict[str, Any]

WAVES: Tree = {
    "window": {"mode": "event", "tmin": 0.0, "tmax": 0.5, "baseline": [-0.1, 0.0]},
    "filters": {"highpass": 0.5, "lowpass": 40.0},
    "decoder": {"preprocess": {"tmin": 0.04, "decimate": "auto", "whiten": True, "components": 400}},
}
"""EEG and MEG: windows around a marker."""
SCANS: Tree = {
    "window": {"mode": "mean", "tmin": 4.0, "tmax": 8.0},
    "filters": {"percent_signal": 128.0, "drift": 128.0},
    "decoder": {"preprocess": {"components": None, "kernel": "rbf"}},
    "engine": {"strength": 0.75, "structure": {"candidates": 4, "renoise_strength": 0.6}},
}
"""fMRI: the mean of the volumes around the peak of the response."""
BY_KIND = {"eeg": WAVES, "meg": WAVES, "fmri": SCANS}
BANK = 6000
"""Pictures that nobody is shown, composed, from which the prior of structure learns: of the kind that the desk models
draw. Other models draw other pictures: name a folder of such in `data.image_bank`."""
DESK = "models/desk"


def with_defaults(raw: Mapping[str, Any]) -> Tree:
    """Return a config with the defaults of its kind of data filled in.

    Parameters
    ----------
    raw : mapping
        A config as its file has it; it may be wrong in any way, which is for the validation after this to say.

    Returns
    -------
    dict
        The same where the kind of data is not known.
    """
    kind = kind_of(raw)
    if kind not in BY_KIND:
        return dict(raw)
    below = BY_KIND[kind]
    if _part(raw, "window").get("mode", below["window"]["mode"]) != below["window"]["mode"]:
        below = {name: part for name, part in below.items() if name != "window"}
    decoder = _part(raw, "decoder")
    if decoder.get("category") is not None:  # no structure, and no pictures from numbers
        below = {name: part for name, part in below.items() if name in {"window", "filters"}}
    elif _has_structure(decoder):
        below = overlaid(below, _structure(raw))
    return overlaid(below, raw)


def kind_of(raw: Mapping[str, Any]) -> str:
    """Return what kind of data a config is of ('eeg', 'meg', 'fmri'); empty where nothing is laid under it.

    Recordings of one's own whose source names no type, or one that says nothing ('Data'), are taken for EEG.
    """
    dataset = _part(raw, "data").get("dataset")
    if isinstance(dataset, str) and dataset.startswith("simulated-"):
        return dataset.removeprefix("simulated-")
    if dataset != "recording":
        return ""
    kind = _part(raw, "source").get("type", "EEG")
    if not isinstance(kind, str):
        return ""
    return "eeg" if kind.strip().casefold() in NO_TYPE else kind.lower()


def overlaid(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """Merge two trees of settings; values of `above` win."""
    inner = {name: overlaid(below[name], value) for name, value in above.items() if _both(below.get(name), value)}
    return {**below, **above, **inner}


def _both(below: object, above: object) -> bool:
    return isinstance(below, Mapping) and isinstance(above, Mapping)


def _has_structure(decoder: Mapping[str, Any]) -> bool:
    features = decoder.get("features", ["s"])
    return isinstance(features, list | tuple) and "s" in features


def _structure(raw: Mapping[str, Any]) -> Tree:
    """Return the prior of structure, or what takes its place, where there are pictures that it can learn from."""
    data = _part(raw, "data")
    models = _part(_part(raw, "engine"), "models")
    decoder = _part(raw, "decoder")
    through = _part(decoder, "encoding").get("posterior")
    if isinstance(through, list | tuple) and "s" in through:
        prior: Tree = {}
        learns = True
    else:
        prior = {"decoder": {"structure_prior": {}}}
        learns = decoder.get("structure_prior", {}) is not None
    if "image_bank" in data:
        return prior if data["image_bank"] is not None else {}
    return {"data": {"image_bank": BANK}, **prior} if learns and models.get("folder", DESK) == DESK else {}


def _part(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = raw.get(name)
    return part if isinstance(part, Mapping) else {}
