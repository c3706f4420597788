"""A simulated participant as an amplifier hears it: samples without end, and responses to what is shown meanwhile."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decoder.simulation.eeg import RESPONSE_S, Participant
from decoder.simulation.ongoing import Misbehaviour, Ongoing

Array = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(slots=True, eq=False)
class _Response:
    """A response under way: when the picture came, how it is seen by the sensors, and what is this trial's own."""

    onset: float
    fields: Floats = field(repr=False)
    delay: float


class LiveParticipant:
    """A participant whose samples are asked for in order, and who may be shown a picture at any time.

    Parameters
    ----------
    participant : Participant
    sfreq : float
        Hz.
    run : int or None
        Seeds noise and what varies from trial to trial; None: another one each time.
    misbehaviour : Misbehaviour, optional

    Attributes
    ----------
    sent : int
        Samples that were taken.
    """

    def __init__(
        self, participant: Participant, sfreq: float, run: int | None, misbehaviour: Misbehaviour | None = None
    ) -> None:
        noise, self._trials = np.random.default_rng(run).spawn(2)
        self.participant, self.sfreq, self.sent = participant, sfreq, 0
        self._ongoing = Ongoing(participant, sfreq, noise, misbehaviour or Misbehaviour())
        self._responses: list[_Response] = []

    def see(self, onset: float, amplitudes: NDArray[Any]) -> None:
        """Show a picture.

        Parameters
        ----------
        onset : float
            Seconds from sample 0, not bound to a sample. Of what lies before the next sample nothing is changed.
        amplitudes : ndarray, shape (n_sources,)
            What `Participant.code` gives for the picture.
        """
        preset = self.participant.preset
        gain = np.exp(preset.gain_jitter * self._trials.normal())
        delay = preset.latency_jitter * self._trials.normal()
        self._responses.append(_Response(onset, gain * self.participant.fields(amplitudes), delay))

    def take(self, n: int) -> Array:
        """Return the next n samples, (n, n_channels), in V or T."""
        data = self._ongoing.take(n)
        times = (self.sent + np.arange(n)) / self.sfreq
        self.sent += n
        for response in self._responses:
            since = times - response.onset
            during = (since >= 0) & (since < RESPONSE_S)
            if during.any():
                data[:, during] += self.participant.course(response.fields, since[during] - response.delay)
        self._responses = [each for each in self._responses if each.onset + RESPONSE_S > times[-1]]
        return np.ascontiguousarray(data.T, np.float32)
