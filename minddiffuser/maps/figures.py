"""Figures of maps, for light and for dark pages."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decoder.simulation.headmodel import HEAD_RADIUS
from minddiffuser.maps.maps import Maps, regions
from stream.types.units import FOR_PEOPLE

if TYPE_CHECKING:
    from decoder.evaluation.patterns import Patterns
    from stream.types.windows import Channels

INK = {"light": ("#1b1f24", "#ffffff", "#1f6feb"), "dark": ("#e6e9ee", "#14171b", "#6cb0ff")}
"""Foreground, background and accent."""
LEAST_SENSORS = 10
"""Fewer make no map: they are drawn channel by channel."""
HELMET_RIM = 10
"""Share of a helmet's sensors, in percent, that lies lower than its rim."""
N_TIMES = 6
N_COLUMNS = 3
WIDTH, DPI = 4.8, 160
"""Inches: narrow, so that letters can be read on a phone as well."""
MOST_NAMED = 20


def write_figures(maps: Maps, folder: Path) -> dict[str, dict[str, Path]]:
    """Draw every figure twice, as PNG.

    Returns
    -------
    files : dict
        By name of the figure ('decodability', 'pattern-c', ...), the file for 'light' and for 'dark'.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    out: dict[str, dict[str, Path]] = {}
    sensors = sensor_places(maps.channels)
    for theme, (ink, paper, accent) in INK.items():
        style: Any = {
            **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), ink),
            **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), paper),
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
        with mpl.rc_context(style):
            figures: dict[str, Figure] = {"decodability": _decodability(maps, accent, ink)}
            for name, found in maps.patterns.items():
                figures[f"pattern-{name}"] = _pattern(maps, found, sensors)
            for name, found in maps.drive.items():
                draw = _vector_pattern if len(maps.times) == 1 else _channel_pattern
                figures[f"drive-{name}"] = draw(maps, found)
            for name, figure in figures.items():
                path = folder / f"{name}-{theme}.png"
                figure.savefig(path, dpi=DPI)
                out.setdefault(name, {})[theme] = path
    return out


def sensor_places(channels: Channels) -> tuple[NDArray[np.intp], Any] | None:
    """Find where sensors are, by their names.

    Returns
    -------
    places : (rows, mne.Info or ndarray of shape (n, 2)) or None
        Magnetometers before EEG before gradiometers of axial systems; None if no name is known.
    """
    for kind in ("mag", "eeg"):
        rows = np.array([row for row, own in enumerate(channels.kinds) if own == kind], dtype=np.intp)
        names = [channels.names[row] for row in rows]
        found = (_meg_places(names) if kind == "mag" else _eeg_places(names)) if names else None
        if found is not None:
            return rows[found[0]], found[1]
    return None


def _eeg_places(names: list[str]) -> tuple[list[int], Any] | None:
    import mne

    known = set(mne.channels.get_builtin_montages())
    for montage_name in ("easycap-M1", "colin27_1005", "standard_1005"):
        if montage_name not in known:
            continue
        montage = mne.channels.make_standard_montage(montage_name)
        by_lower = {name.lower(): name for name in montage.ch_names}
        own = [row for row, name in enumerate(names) if name.lower() in by_lower]
        if len(own) == len(names) or (own and montage_name != "easycap-M1"):
            info = mne.create_info([by_lower[names[row].lower()] for row in own], 100.0, "eeg")
            return own, info.set_montage(montage)
    return None


def _meg_places(names: list[str]) -> tuple[list[int], Any] | None:
    import mne

    from decoder.simulation.headmodel import meg_info

    simulated = meg_info(100.0)
    if names == simulated["ch_names"]:
        return list(range(len(names))), simulated
    for layout_name in ("Vectorview-mag", "CTF-275"):
        layout = mne.channels.read_layout(layout_name)
        short = [name.split("-")[0].replace(" ", "") for name in layout.names]
        place = {name: row for row, name in enumerate(short)}
        own = [row for row, name in enumerate(names) if name.split("-")[0].replace(" ", "") in place]
        if own:
            rows = [place[names[row].split("-")[0].replace(" ", "")] for row in own]
            boxes = layout.pos[rows]
            flat = boxes[:, :2] + boxes[:, 2:] / 2
            whole = layout.pos[:, :2] + layout.pos[:, 2:] / 2
            middle = (whole.min(axis=0) + whole.max(axis=0)) / 2
            return own, (flat - middle) * 0.19 / np.ptp(whole, axis=0)
    return None


def _decodability(maps: Maps, accent: str, ink: str) -> Any:
    from matplotlib.figure import Figure

    found = maps.decodability
    n = len(found.features)
    figure = Figure(figsize=(WIDTH, 0.8 + 1.1 * n), layout="constrained")
    axes = figure.subplots(n, 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    at = np.arange(len(maps.places)) if maps.centres is None else 1e3 * maps.centres
    for row, (name, axis) in enumerate(zip(found.features, axes, strict=True)):
        axis.axhline(found.threshold, color=ink, linestyle="--", linewidth=0.8)
        axis.axhline(0, color=ink, linewidth=0.5)
        if maps.centres is None:
            axis.bar(at, found.score[row], color=accent)
            axis.vlines(at, found.low[row], found.high[row], color=ink, linewidth=4, alpha=0.5)
        else:
            axis.fill_between(at, found.low[row], found.high[row], color=ink, alpha=0.2, linewidth=0)
            axis.plot(at, found.score[row], color=accent, linewidth=1.8)
            if (begun := maps.onset(row)) is not None:
                low = maps.times[0] if begun.not_before is None else max(begun.not_before, maps.times[0])
                axis.axvspan(1e3 * low, 1e3 * begun.told_by, ymax=0.06, color=accent, linewidth=0)
        axis.set_title(name, loc="left", fontsize=10, fontweight="bold")
    if maps.centres is None:
        axes[-1].set_xticks(at, maps.places, rotation=30, ha="right")
    else:
        axes[-1].set_xlabel("time from the picture (ms); bar: begins")
    figure.supylabel("held-out correlation")
    return figure


def _pattern(maps: Maps, found: Patterns, sensors: tuple[NDArray[np.intp], Any] | None) -> Any:
    if len(maps.times) == 1:
        return _vector_pattern(maps, found)
    if sensors is None or len(sensors[0]) < LEAST_SENSORS:
        return _channel_pattern(maps, found)
    return _topographies(maps, found, *sensors)


def _topographies(maps: Maps, found: Patterns, rows: NDArray[np.intp], where: Any) -> Any:
    import mne
    from matplotlib.figure import Figure

    edges = np.linspace(0, len(maps.times), N_TIMES + 1).round().astype(int)
    slices = [slice(low, high) for low, high in pairwise(edges.tolist()) if high > low]
    scale, unit = FOR_PEOPLE.get(maps.channels.units[rows[0]], (1.0, maps.channels.units[rows[0]]))
    strength, first = scale * found.strength[rows], scale * found.components[0][rows]
    n_lines = -(-len(slices) // N_COLUMNS)
    figure = Figure(figsize=(WIDTH, 0.3 + 2.9 * n_lines), layout="constrained")
    lines = (
        ("strength", np.stack([np.sqrt((strength[:, s] ** 2).mean(axis=1)) for s in slices]), "viridis", False),
        ("component 1", np.stack([first[:, s].mean(axis=1) for s in slices]), "RdBu_r", True),
    )
    sphere = head_under(where)
    grid = figure.add_gridspec(2, 1)
    for half, (name, values, cmap, signed) in enumerate(lines):
        part = figure.add_subfigure(grid[half])
        axes = part.subplots(n_lines, N_COLUMNS, squeeze=False)
        top = float(np.abs(values).max()) or 1.0
        limits = (-top if signed else 0.0, top)
        for axis in axes.flat[len(slices) :]:
            axis.set_axis_off()
        for axis, value, times in zip(axes.flat, values, (maps.times[s] for s in slices), strict=False):
            drawn, _ = mne.viz.plot_topomap(
                value, where, axes=axis, cmap=cmap, vlim=limits, contours=0, sensors="k,", sphere=sphere, show=False
            )
            axis.set_title(f"{1e3 * times[0]:.0f}-{1e3 * times[-1]:.0f} ms", fontsize=9)
        part.colorbar(drawn, ax=axes, shrink=0.75, label=f"{name} ({unit})")
    return figure


def head_under(where: Any) -> tuple[float, float, float, float] | None:
    """Return the sphere (m) that puts a helmet's rim on the outline of the head; None for scalp and flat places."""
    if not hasattr(where, "get_channel_types") or "mag" not in where.get_channel_types(unique=True):
        return None
    places = np.stack([channel["loc"][:3] for channel in where["chs"]])
    # Angles are counted from the sphere's centre: what lies level with it is drawn on the outline.
    centre = [*places[:, :2].mean(axis=0), np.percentile(places[:, 2], HELMET_RIM)]
    return float(centre[0]), float(centre[1]), float(centre[2]), HEAD_RADIUS


def _channel_pattern(maps: Maps, found: Patterns) -> Any:
    from matplotlib.figure import Figure

    scale, unit = FOR_PEOPLE.get(maps.channels.units[0], (1.0, maps.channels.units[0]))
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axis = figure.subplots()
    extent = (1e3 * maps.times[0], 1e3 * maps.times[-1], len(maps.channels) - 0.5, -0.5)
    image = axis.imshow(
        scale * found.strength, aspect="auto", cmap="viridis", extent=extent, vmin=0, interpolation="nearest"
    )
    axis.set_xlabel("time from the picture (ms)")
    axis.set_ylabel("channel")
    if len(maps.channels) <= MOST_NAMED:
        axis.set_yticks(np.arange(len(maps.channels)), maps.channels.names)
    figure.colorbar(image, ax=axis, label=f"strength ({unit})")
    return figure


def _vector_pattern(maps: Maps, found: Patterns) -> Any:
    from matplotlib.figure import Figure

    own = np.asarray(regions(maps.channels))
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    axis = figure.subplots()
    for name in dict.fromkeys(own.tolist()):
        strength = np.sort(found.strength[own == name, 0])[::-1]
        axis.plot(np.arange(1, len(strength) + 1), strength, label=f"{name} ({len(strength)})", linewidth=1.8)
    axis.set_xlabel("channels, strongest first")
    axis.set_ylabel(f"strength ({maps.channels.units[0]})")
    axis.set_ylim(0)
    axis.legend(frameon=False, fontsize=9)
    return figure
