"""A participant without complex cells: V1 answers to luminance and colour, and meaning comes clearly later."""

from decoder.simulation.eeg import Preset

SIMPLE = Preset(
    evoked_rms=6.0,
    low=0.65,
    mid=0.05,
    semantic=0.3,
    background=6.0,
    alpha=4.0,
    sensor=1.0,
    gain_jitter=0.1,
    latency_jitter=0.005,
)
