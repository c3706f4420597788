"""A simulated participant: EEG or MEG in answer to pictures, with the truth to hand.

Current dipoles in a spherical head (Sarvas 1987, Zhang 1995, through mne) carry what is known of the ventral stream:
V1 (about 95 ms) the retinotopic low-level content of the pixels, V4 (about 150 ms) mid-level content, IT (about 220 ms)
a semantic vector that the caller gives and, in the preset `demo`, V2 and V3 (55 to 190 ms) oriented contrast energy. On
top lie 1/f background from all over the brain, bursts of occipital alpha, sensor noise and blinks; responses vary from
trial to trial in size and latency.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from decoder.errors import TrainingError
from decoder.simulation.background import alpha_bursts, blinks, coloured
from decoder.simulation.headmodel import (
    CORTEX_RADIUS,
    SEMANTIC_SOURCES,
    Sources,
    eeg_info,
    leadfield,
    meg_info,
    place_sources,
)
from decoder.visual_features import contrast_energy, low_level, mid_level
from stream.atomic import whole_file

Array = NDArray[np.float32]
Floats = NDArray[np.float64]

SFREQ = 250.0
RESPONSE_S = 0.6
"""How long a response is computed for after the onset."""
EARLY_S = 0.4
"""How much of it is counted when its size is stated."""
BACKGROUND_SOURCES = 80
TUNING_PICTURES = 200
"""So many reference pictures settle the gains."""
FEW = 64
LEAST_SPREAD = 1e-5
"""Reference pictures whose code differs by less than this share of its size differ by rounding errors only."""
MEG_UNIT = 2.5e-14
"""Tesla of a magnetometer for each microvolt of EEG: 7 uV of background becomes 175 fT."""
# fmt: off
EEG_CHANNELS = (
    "Fp1", "F3", "F7", "FT9", "FC5", "FC1", "C3", "T7", "TP9", "CP5", "CP1", "Pz", "P3", "P7", "O1", "Oz", "O2",
    "P4", "P8", "TP10", "CP6", "CP2", "Cz", "C4", "T8", "FT10", "FC6", "FC2", "F4", "F8", "Fp2", "AF7", "AF3",
    "AFz", "F1", "F5", "FT7", "FC3", "FCz", "C1", "C5", "TP7", "CP3", "P1", "P5", "PO7", "PO3", "POz", "PO4", "PO8",
    "P6", "P2", "CPz", "CP4", "TP8", "C6", "C2", "FC4", "FT8", "F6", "F2", "AF4", "AF8",
)
# fmt: on
"""The 63 channels of THINGS-EEG2 (Gifford et al. 2022), all of mne's 'easycap-M1'."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Preset:
    """Noise and signal of a simulated participant.

    Attributes
    ----------
    evoked_rms : float
        Of what differs between pictures, over channels, pictures and the first 0.4 s; in uV of EEG.
    low, mid, semantic, energy : float
        Shares of the evoked power: `visual_features.low_level` in V1, `visual_features.mid_level` in V4, meaning in IT,
        and `visual_features.contrast_energy` in complex cells of V2 and V3; without a share there are none.
    background, alpha, sensor : float
        RMS of 1/f background, of alpha at the height of a burst, and of sensor noise, over channels; in uV of EEG.
    blink_every : float
        Mean seconds between blinks.
    gain_jitter, latency_jitter : float
        Trial-to-trial standard deviation of the log gain, and of the latency in seconds.
    """

    evoked_rms: float
    low: float
    mid: float
    semantic: float
    energy: float = 0.0
    background: float = 7.0
    alpha: float = 5.0
    sensor: float = 1.5
    blink_every: float = 8.0
    gain_jitter: float = 0.15
    latency_jitter: float = 0.008


PRESETS = {
    "thingslike": Preset(evoked_rms=0.6, low=0.4, mid=0.2, semantic=0.4),
    "demo": Preset(
        evoked_rms=12.0,
        low=0.2,
        mid=0.05,
        semantic=0.15,
        energy=0.6,
        background=1.5,
        alpha=1.0,
        sensor=0.25,
        gain_jitter=0.05,
        latency_jitter=0.002,
    ),
}
"""`thingslike` is meant to be as hard as THINGS-EEG2. `demo` is twenty times stronger, has a quarter of its noise and
complex cells, which tell where contrast is and how it is turned: far easier than any person, so that single
presentations give pictures worth looking at."""
PresetName = Literal["thingslike", "demo"]


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What really happened in a simulated recording.

    Attributes
    ----------
    sources : Sources
    leadfield : ndarray, shape (n_channels, n_sources)
        V or T per unit of source amplitude.
    labels : tuple of str
        What was shown, trial by trial.
    onsets : ndarray, shape (n_trials,)
        Seconds from the recording's start.
    amplitudes : ndarray, shape (n_trials, n_sources)
        Before the trial's gain.
    gains, delays : ndarray, shape (n_trials,)
        The trial's factor, and how much later it came (s).
    snr_db : float
        Power of what differs between pictures over that of everything else, in the first 0.4 s, over all channels.
    """

    sources: Sources
    leadfield: Floats
    labels: tuple[str, ...]
    onsets: Floats
    amplitudes: Array
    gains: Floats
    delays: Floats
    snr_db: float

    def save(self, path: Path) -> None:
        """Write to .npz."""
        with whole_file(path) as file:
            np.savez_compressed(
                file,
                **{name: getattr(self, name) for name in Truth.__slots__ if name != "sources"},
                **{f"source_{name}": getattr(self.sources, name) for name in Sources.__slots__},
            )

    @classmethod
    def load(cls, path: Path) -> "Truth":
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as held:
            sources: dict[str, Any] = {name: held[f"source_{name}"] for name in Sources.__slots__}
            rest: dict[str, Any] = {name: held[name] for name in Truth.__slots__ if name != "sources"}
        for name in ("area", "feature"):
            sources[name] = tuple(sources[name].tolist())
        rest["labels"] = tuple(rest["labels"].tolist())
        return cls(Sources(**sources), **rest | {"snr_db": float(rest["snr_db"])})


class Participant:
    """One brain: the same sources, tuning and noise in every recording made of it.

    Parameters
    ----------
    modality : {'eeg', 'meg'}
    preset : {'thingslike', 'demo'} or Preset
    seed : int
        Another seed is another participant.
    images : ndarray, shape (n, height, width, 3), uint8
        Pictures whose spread sets the tuning, such as the calibration pictures (a hundred or more).
    semantics : ndarray, shape (n, d)
        What they mean.
    rotation : (float, float, float)
        Degrees about the axes to the right, the front and the top by which the sensors are rotated.
    channels : sequence of str
        Electrodes of EEG; a MEG helmet has its own sensors.

    Attributes
    ----------
    unit : float
        V or T for each microvolt that a preset names.
    background_fields, alpha_fields : ndarray, shape (n_channels, n)
        What the sensors see of the sources of 1/f background and of alpha.

    Raises
    ------
    TrainingError
        If there are not as many semantic vectors as pictures, or no two pictures differ.
    """

    def __init__(
        self,
        modality: Literal["eeg", "meg"],
        preset: PresetName | Preset,
        seed: int,
        images: NDArray[np.uint8],
        semantics: Array,
        *,
        rotation: tuple[float, float, float] = (0, 0, 0),
        channels: Sequence[str] = EEG_CHANNELS,
    ) -> None:
        from scipy.spatial.transform import Rotation

        self.preset = PRESETS[preset] if isinstance(preset, str) else preset
        rng = np.random.default_rng([seed, {"eeg": 0, "meg": 1}[modality]])
        self.modality = modality
        self.sources = place_sources(rng, energy=self.preset.energy > 0)
        self.info = eeg_info(channels, SFREQ) if modality == "eeg" else meg_info(SFREQ)
        deep = CORTEX_RADIUS * rng.uniform(0.3, 1, (BACKGROUND_SOURCES, 1))
        places, ways = _unit(rng.normal(size=(2, BACKGROUND_SOURCES, 3)))
        position = np.concatenate([self.sources.position, deep * places])
        orientation = np.concatenate([self.sources.orientation, ways])
        # To rotated sensors, every source lies rotated the other way.
        back = Rotation.from_euler("xyz", rotation, degrees=True).as_matrix()
        fields = leadfield(self.info, position @ back, orientation @ back)
        self.leadfield, self.background_fields = np.split(fields, [len(self.sources.area)], axis=1)
        self.alpha_fields = self.leadfield[:, [i for i, area in enumerate(self.sources.area) if area == "V1"]]
        self.alpha_fields = self.alpha_fields @ rng.normal(size=(self.alpha_fields.shape[1], 4))
        self.unit = MEG_UNIT if modality == "meg" else 1e-6
        shapes = np.stack([self.sources.latency, self.sources.width])
        self._kinds, kind = np.unique(shapes, axis=1, return_inverse=True)
        self._courses = np.eye(self._kinds.shape[1])[kind]
        self._tune(images, semantics, rng)

    def _tune(self, images: NDArray[np.uint8], semantics: Array, rng: np.random.Generator) -> None:
        """Fix tuning and gains on reference pictures."""
        if len(images) != len(semantics):
            raise TrainingError(f"{len(images)} pictures but {len(semantics)} semantic vectors; give one a picture")
        self._semantic_mean = semantics.mean(axis=0)
        _, spread, axes = np.linalg.svd(semantics - self._semantic_mean, full_matrices=False)
        axes = axes[:SEMANTIC_SOURCES]
        # Half-whitened: without it one axis (animal or not) would take nearly all of the response.
        scale = np.sqrt(spread[: len(axes), None] + 1e-6 * spread[0])
        axes = np.divide(axes, scale, out=np.zeros_like(axes), where=scale > 0)
        turn, _ = np.linalg.qr(rng.normal(size=(SEMANTIC_SOURCES, SEMANTIC_SOURCES)))
        self._semantic = (axes.T @ turn[: len(axes)]).astype(np.float32)
        self._code_mean, self._code_scale = np.zeros(1, np.float32), np.ones(1, np.float32)
        code = self.code(images, semantics)
        self._code_mean = code.mean(axis=0)
        feature, area = np.asarray(self.sources.feature), np.asarray(self.sources.area)
        scale = np.ones(code.shape[1])
        for name in np.unique(feature):
            scale[feature == name] = 1 / (code[:, feature == name].std() + 1e-9)
        parts = [
            ("V1", area == "V1", self.preset.low),
            ("V4", area == "V4", self.preset.mid),
            ("IT", area == "IT", self.preset.semantic),
            ("V2", area == "V2", self.preset.energy),
        ]
        for name, own, share in parts:
            if not own.any():
                continue
            if np.ptp(code[:, own], axis=0).max() <= LEAST_SPREAD * np.abs(code[:, own]).max():
                raise TrainingError(f"the reference pictures don't differ in what {name} encodes; give other pictures")
            evoked = self._evoked(np.where(own, scale * (code - self._code_mean), 0)[:TUNING_PICTURES])
            rms = np.sqrt(np.mean(evoked**2))
            scale[own] *= np.sqrt(share) * self.preset.evoked_rms * self.unit / rms
        self._code_scale = scale.astype(np.float32)

    def code(self, images: NDArray[np.uint8], semantics: Array) -> Array:
        """Compute the amplitude of every source for every picture, (n, n_sources)."""
        meaning = (semantics - self._semantic_mean) @ self._semantic
        # Few at a time: photographs in floating point are many gigabytes.
        few = np.array_split(images, range(FEW, len(images), FEW))
        parts = [*(np.concatenate([level(part) for part in few]) for level in (low_level, mid_level)), meaning]
        if self.preset.energy > 0:
            parts.append(contrast_energy(images))
        code = np.concatenate([part.reshape(len(images), -1) for part in parts], axis=1)
        return np.asarray((code - self._code_mean) * self._code_scale, np.float32)

    def _evoked(self, amplitudes: Floats) -> Floats:
        """Compute the undisturbed responses in the first 0.4 s, (n, n_channels, n_times)."""
        times = np.arange(0, EARLY_S, 1 / SFREQ)
        return np.stack([self.response(each, times) for each in amplitudes])

    def response(self, amplitudes: NDArray[Any], times: Floats) -> Floats:
        """Compute the sensors' answer to source amplitudes, (n_channels, n_times), in V or T."""
        return self.course(self.fields(amplitudes), times)

    def fields(self, amplitudes: NDArray[Any]) -> Floats:
        """Sum what the sensors see of the sources of each time course, (n_channels, n_courses)."""
        return np.asarray((self.leadfield * amplitudes) @ self._courses)

    def course(self, fields: Floats, times: Floats) -> Floats:
        """Compute the answer at some times after the onset from `fields`, (n_channels, n_times)."""
        return np.asarray(fields @ waveform(times, self._kinds[0][:, None], self._kinds[1][:, None]))

    def record(
        self,
        images: NDArray[np.uint8],
        semantics: Array,
        labels: Sequence[str],
        *,
        run: int,
        repeats: int = 1,
        soa: float = 0.6,
    ) -> tuple[Any, Truth]:
        """Record the participant while pictures are shown in random order.

        Parameters
        ----------
        images : ndarray, shape (n, height, width, 3), uint8
        semantics : ndarray, shape (n, d)
        labels : sequence of str
            Stimulus ids: the annotations' descriptions.
        run : int
            Seeds order, jitter and noise: another run is another recording.
        repeats : int
            How often each picture is shown.
        soa : float
            Seconds from onset to onset.

        Returns
        -------
        raw : mne.io.RawArray
            In V or T, an annotation at each onset.
        truth : Truth
        """
        import mne

        rng = np.random.default_rng([run, len(labels), repeats])
        order = np.concatenate([rng.permutation(len(labels)) for _ in range(repeats)])
        first = round(2 * SFREQ)
        starts = first + np.round(np.arange(len(order)) * soa * SFREQ).astype(int)
        n_times = int(starts[-1]) + round((RESPONSE_S + 2) * SFREQ)
        data = self.noise(n_times, rng)
        code = self.code(images, semantics)
        gains = np.exp(self.preset.gain_jitter * rng.normal(size=len(order)))
        delays = self.preset.latency_jitter * rng.normal(size=len(order))
        times = np.arange(0, RESPONSE_S, 1 / SFREQ)
        early = slice(0, round(EARLY_S * SFREQ))
        noise_power = np.mean(data**2)
        evoked_power = 0.0
        for row, start, gain, delay in zip(order, starts, gains, delays, strict=True):
            response = gain * self.response(code[row], times - delay)
            evoked_power += np.mean(response[:, early] ** 2) / len(order)
            data[:, start : start + len(times)] += response
        raw = mne.io.RawArray(data, self.info.copy(), verbose="error")
        names = tuple(labels[row] for row in order)
        raw.set_annotations(mne.Annotations(starts / SFREQ, [0.0] * len(order), list(names)))
        snr_db = float(10 * np.log10(evoked_power / noise_power))
        logger.info("simulated %s: %d trials, %.1f s, SNR %.1f dB", self.modality, len(order), n_times / SFREQ, snr_db)
        return raw, Truth(self.sources, self.leadfield, names, starts / SFREQ, code[order], gains, delays, snr_db)

    def noise(self, n_times: int, rng: np.random.Generator) -> Floats:
        """Draw what the sensors say besides answers, (n_channels, n_times), in V or T."""
        unit, preset = self.unit, self.preset
        data = self.background_fields @ coloured(self.background_fields.shape[1], n_times, rng)
        data *= preset.background * unit / np.sqrt(np.mean(data**2))
        data += preset.alpha * unit * unit_rms(self.alpha_fields) @ alpha_bursts(4, n_times, SFREQ, rng) / 2
        data += preset.sensor * unit * rng.normal(size=data.shape)
        data += unit * blinks(self.info, n_times, SFREQ, preset.blink_every, rng)
        return data


def waveform(times: NDArray[Any], latency: NDArray[Any], width: NDArray[Any]) -> Floats:
    """Shape of a response: a Gaussian peak and a slower, weaker swing back."""
    rise = np.exp(-0.5 * ((times - latency) / width) ** 2)
    back = np.exp(-0.5 * ((times - latency - 2.5 * width) / (1.6 * width)) ** 2)
    return np.asarray(rise - 0.5 * back)


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def unit_rms(fields: Floats) -> Floats:
    """Scale what the sensors see of each source to an RMS of 1 over the sensors."""
    return np.asarray(fields / np.sqrt(np.mean(fields**2, axis=0)))
