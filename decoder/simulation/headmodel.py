"""The simulated participant's head: sensors, sources, and how the ones see the others."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.errors import TrainingError
from decoder.visual_features import ENERGY_FEATURES, LOW_FEATURES, LOW_GRID, MID_FEATURES, MID_GRID

Floats = NDArray[np.float64]

HEAD_RADIUS = 0.095
CORTEX_RADIUS = 0.075
SEMANTIC_SOURCES = 32
N_MAGNETOMETERS = 102
MONTAGES = ("easycap-M1", "colin27_1005", "standard_1005")
"""Where electrodes sit: the first of mne's montages that has all of them; the last two are one, under two names."""
POINT_MAGNETOMETER = 2000
"""FIFF coil type of an ideal magnetometer."""
V1_LATENCY = {"contrast": 0.085, "luminance": 0.093, "red-green": 0.100, "blue-yellow": 0.107}
ENERGY_LATENCIES = dict(zip(ENERGY_FEATURES, (0.128,) * 4 + (0.115,) * 4, strict=True))
"""Fine detail is answered later than coarse."""
ENERGY_SCATTER = 0.060
"""Each patch of complex cells peaks up to so much (s) before or after the others, uniformly: of V2 and V3, some answer
as soon as V1 and some as late as V4."""
V4_LATENCY = 0.150
IT_LATENCIES = (0.190, 0.210, 0.230, 0.250)


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """Current dipoles, and how each answers.

    Attributes
    ----------
    area : tuple of str
        'V1', 'V2', 'V4' or 'IT', one a source.
    feature : tuple of str
        What it encodes ('luminance', 'semantic', ...).
    position, orientation : ndarray, shape (n_sources, 3)
        In head coordinates (m), and as unit vectors.
    latency, width : ndarray, shape (n_sources,)
        Peak and width of the response, in seconds.
    """

    area: tuple[str, ...]
    feature: tuple[str, ...]
    position: Floats
    orientation: Floats
    latency: Floats
    width: Floats


def place_sources(rng: np.random.Generator, *, energy: bool = False) -> Sources:
    """Lay out V1, V2 with V3, and V4 retinotopically and IT along both temporal lobes.

    Sources come in the order of `visual_features.low_level`, `visual_features.mid_level`, the semantic axes and, where
    V2 and V3 have complex cells that encode it (`energy`), `visual_features.contrast_energy`. V1 keeps the order of the
    visual field (left field to the right hemisphere, upper field below, periphery forward), V2 and V3 do so over twice
    the breadth, and folding turns each patch its own way.
    """
    parts: list[tuple[str, str, Floats, float | Floats, float]] = []
    for feature in LOW_FEATURES:
        position = _retinotopic(LOW_GRID, back=CORTEX_RADIUS, spread=0.022)
        parts.append(("V1", feature, position, V1_LATENCY[feature], 0.014))
    for feature in MID_FEATURES:
        position = _retinotopic(MID_GRID, back=0.066, spread=0.034) + np.array([0, 0.012, -0.018])
        parts.append(("V4", feature, position, V4_LATENCY, 0.020))
    side = np.where(np.arange(SEMANTIC_SOURCES) % 2, 1, -1)
    n = SEMANTIC_SOURCES
    temporal = np.stack(
        [side * rng.uniform(0.045, 0.06, n), rng.uniform(-0.045, 0.015, n), -rng.uniform(0.01, 0.03, n)]
    )
    latency = np.tile(IT_LATENCIES, n)[:n]
    parts.append(("IT", "semantic", temporal.T, latency, 0.035))
    for feature in ENERGY_FEATURES if energy else ():
        position = _retinotopic(LOW_GRID, back=CORTEX_RADIUS, spread=0.044)
        scatter = rng.uniform(-ENERGY_SCATTER, ENERGY_SCATTER, len(position))
        parts.append(("V2", feature, position, ENERGY_LATENCIES[feature] + scatter, 0.014))
    counts = [len(part[2]) for part in parts]
    orientation = rng.normal(size=(sum(counts), 3))
    return Sources(
        area=tuple(part[0] for part, n in zip(parts, counts, strict=True) for _ in range(n)),
        feature=tuple(part[1] for part, n in zip(parts, counts, strict=True) for _ in range(n)),
        position=np.concatenate([part[2] for part in parts]),
        orientation=orientation / np.linalg.norm(orientation, axis=1, keepdims=True),
        latency=np.concatenate([np.broadcast_to(part[3], n) for part, n in zip(parts, counts, strict=True)]),
        width=np.concatenate([np.full(n, part[4]) for part, n in zip(parts, counts, strict=True)]),
    )


def _retinotopic(grid: int, back: float, spread: float) -> Floats:
    """Map the cells of the visual field (row by row) onto the back of a sphere of radius `back`."""
    field = (np.arange(grid) + 0.5) / grid * 2 - 1
    down, right = (each.ravel() for each in np.meshgrid(field, field, indexing="ij"))
    # The hemispheres are apart, so the two halves of the field are too.
    x = -(right * spread + np.sign(right) * 0.004)
    z = down * spread
    return np.stack([x, -np.sqrt(back**2 - x**2 - z**2), z], axis=1)


@cache
def _places(montage: str) -> frozenset[str]:
    """Return the electrodes of one of mne's montages; none where this version of mne does not know it."""
    import mne

    known = montage in mne.channels.get_builtin_montages()
    return frozenset(mne.channels.make_standard_montage(montage).ch_names if known else ())


def has_place(name: str) -> bool:
    """Return whether a channel is an electrode of the 10-05 system."""
    return any(name in _places(montage) for montage in MONTAGES)


def check_electrodes(names: Sequence[str]) -> str:
    """Return the first of mne's montages that has all of some electrodes.

    Raises
    ------
    TrainingError
        One has no place, or is named twice.
    """
    if unknown := [name for name in names if not has_place(name)]:
        raise TrainingError(f"no electrode of the 10-05 system is called {unknown[0]!r}; name electrodes such as Oz")
    if len(set(names)) < len(names):
        raise TrainingError(f"an electrode is named twice: {', '.join(names)}")
    for montage in MONTAGES:
        if _places(montage).issuperset(names):
            return montage
    raise TrainingError(f"no montage has all of {', '.join(names)}")


def eeg_info(names: Sequence[str], sfreq: float) -> Any:
    """Return the mne.Info of EEG channels at their places in 'easycap-M1', or else of the 10-05 system.

    Raises
    ------
    TrainingError
        See `check_electrodes`.
    """
    import mne

    montage = check_electrodes(names)

    info = mne.create_info(list(names), sfreq, "eeg")
    with info._unlock():
        info["description"] = "simulated participant"
    info.set_montage(montage)
    return info


def meg_info(sfreq: float) -> Any:
    """Return the mne.Info of 102 ideal magnetometers spread over mne's 306-channel helmet."""
    import mne

    path = Path(mne.__file__).parent / "data" / "helmets" / "306m.fif.gz"
    helmet = mne.read_bem_surfaces(path, verbose="error")[0]
    chosen = _spread_out(helmet["rr"], N_MAGNETOMETERS)
    info = mne.create_info([f"MEG{row:03d}" for row in range(N_MAGNETOMETERS)], sfreq, "mag")
    for channel, row in zip(info["chs"], chosen, strict=True):
        normal = helmet["rr"][row] / np.linalg.norm(helmet["rr"][row])
        across = np.linalg.svd(normal[None])[2][1:]
        across[1] = np.cross(normal, across[0])
        channel["loc"][:12] = np.concatenate([helmet["rr"][row], across[0], across[1], normal])
        channel["coil_type"] = POINT_MAGNETOMETER
    with info._unlock():
        info["dev_head_t"] = mne.transforms.Transform("meg", "head")
        info["description"] = "simulated participant"
    return info


def _spread_out(points: Floats, n: int) -> list[int]:
    """Choose n points, each the farthest from those before it."""
    chosen = [int(points[:, 2].argmax())]
    distance = np.full(len(points), np.inf)
    for _ in range(n - 1):
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return sorted(chosen)


def leadfield(info: Any, position: Floats, orientation: Floats) -> Floats:
    """Compute what each sensor sees of each dipole in a spherical head.

    Parameters
    ----------
    info : mne.Info
    position, orientation : ndarray, shape (n_dipoles, 3)
        Head coordinates in m, less than 85 mm from the centre; unit vectors.

    Returns
    -------
    fields : ndarray, shape (n_channels, n_dipoles)
        V or T per Am; EEG is referred to the average of its channels.
    """
    import mne

    sphere = mne.make_sphere_model(r0=(0, 0, 0), head_radius=HEAD_RADIUS, verbose="error")
    source_space = mne.setup_volume_source_space(pos={"rr": position, "nn": orientation}, verbose="error")
    meg = "mag" in info.get_channel_types(unique=True)
    forward = mne.make_forward_solution(
        info, trans=None, src=source_space, bem=sphere, meg=meg, eeg=not meg, mindist=0, verbose="error"
    )
    fields = forward["sol"]["data"].reshape(len(info["chs"]), len(position), 3)
    fixed = np.einsum("csk,sk->cs", fields, orientation)
    return np.asarray(fixed if meg else fixed - fixed.mean(axis=0), np.float64)
