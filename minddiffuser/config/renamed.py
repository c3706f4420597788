"""Keys of configs that have been renamed or removed: old ones are read for one release, with one line each."""

from __future__ import annotations

import copy
import logging
from typing import Any

logger = logging.getLogger(__name__)

Place = tuple[str, ...]

RENAMED: dict[Place, Place] = {
    ("data", "bank"): ("data", "image_bank"),
    ("decoder", "c_from"): ("decoder", "text_embedding_from"),
    ("decoder", "s_prior"): ("decoder", "structure_prior"),
    ("engine", "structure", "draws"): ("engine", "structure", "candidates"),
    ("engine", "structure", "finish"): ("engine", "structure", "renoise_strength"),
    ("engine", "structure", "rounds"): ("engine", "structure", "refinement_rounds"),
    ("engine", "structure", "anchor"): ("engine", "structure", "weights", "latent_prior"),
    ("engine", "structure", "latent_prior_weight"): ("engine", "structure", "weights", "latent_prior"),
    ("engine", "structure", "likelihood_weight"): ("engine", "structure", "weights", "likelihood"),
    ("engine", "structure", "proximal"): ("engine", "structure", "weights", "proximal"),
}
"""Old place of a setting to its new one."""
RENAMED_VALUES: dict[Place, dict[str, str]] = {}
"""New place of a setting to its old values and what they are called now."""
RIDGE = "ridge is on all inputs, each number of a feature with its own penalty"
REMOVED: dict[Place, str] = {
    ("decoder", "conv", "attention"): "channels are weighed by each subject's own layer",
    ("decoder", "regression", "method"): RIDGE,
    ("decoder", "regression", "inputs"): RIDGE,
    ("decoder", "regression", "bands"): RIDGE,
    ("decoder", "regression", "candidates"): RIDGE,
    ("engine", "structure", "update"): "stage 2 by 'exact' and 'onestep' updates both z and c, as in the paper",
    ("engine", "structure", "noise_index"): "stage 2 by 'exact' noises z to the first step that it takes",
    ("filters", "zscore"): "decoder.preprocess scales windows by what training saw",
    ("engine", "reuse"): "every window is reconstructed; queue.policy 'latest' sheds load",
}
"""Place of a setting that is no more to what holds instead."""


def with_new_names(raw: dict[str, Any], *, quiet: bool = False) -> dict[str, Any]:
    """Return a config whose renamed keys and values are the current ones.

    Parameters
    ----------
    raw : dict
        A config as it was written; left as it is.
    quiet : bool
        No warning, and settings that are no more are left out: nobody can edit the config of a bundle.
    """
    out = copy.deepcopy(raw)
    level = logging.DEBUG if quiet else logging.WARNING
    for old, new in RENAMED.items():
        section = _section(out, old[:-1])
        if section is None or old[-1] not in section:
            continue
        value = section.pop(old[-1])
        _section(out, new[:-1], make=True).setdefault(new[-1], value)
        logger.log(
            level, "config: %s is now called %s; the old name goes with the next release", ".".join(old), ".".join(new)
        )
    for place, values in RENAMED_VALUES.items():
        section = _section(out, place[:-1])
        value = section.get(place[-1]) if section is not None else None
        if section is not None and isinstance(value, str) and value in values:
            section[place[-1]] = values[value]
            logger.log(level, "config: %s: %s is now called %s", ".".join(place), value, values[value])
    if quiet:
        for place, instead in REMOVED.items():
            section = _section(out, place[:-1])
            if section is not None and section.pop(place[-1], None) is not None:
                logger.debug("config: %s is no more: %s", ".".join(place), instead)
    if isinstance(candidates := out.get("candidates"), list):
        out["candidates"] = [
            with_new_names(each, quiet=quiet) if isinstance(each, dict) else each for each in candidates
        ]
    return out


def removed(raw: dict[str, Any]) -> tuple[Place, str] | None:
    """Return the first setting of a config that is no more, and what holds instead; None where there is none."""
    for place, instead in REMOVED.items():
        section = _section(raw, place[:-1])
        if section is not None and place[-1] in section:
            return place, f"is no more, take it out: {instead}"
    return None


def _section(raw: dict[str, Any], place: Place, *, make: bool = False) -> Any:
    section: Any = raw
    for part in place:
        if make and not isinstance(section.get(part), dict):
            section[part] = {}
        section = section.get(part) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else None
