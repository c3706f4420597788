"""The amplifier of a simulated participant: samples by the clock, each response where its marker puts it."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    from decoder.simulation.live import LiveParticipant
    from decoder.simulation.ongoing import Misbehaviour
    from stream.types.events import Event
    from stream.types.labels import LabelMatcher

CHUNK_S = 0.02
"""Of samples that are sent together, as by amplifiers with a cable."""
DELAY_S = 0.05
"""From a sample's time to its sending: as long as a marker may take to be answered from its beginning."""
DROP_EVERY_S = 5.0
DROP_CHUNKS = 5
"""The most that are lost together."""
JITTER_S = 0.004
EXAMPLES = 5


@dataclass(slots=True)
class Account:
    """What an amplifier sent, and what became of the markers.

    Attributes
    ----------
    samples, dropped : int
        Sent, and lost on purpose.
    markers : int
        Received: each was answered, or named no picture.
    answered, unknown : int
    late : int
        Of those answered, how many came when samples of their time had been sent: the response lacks its beginning.
    unknown_labels : list of str
        Examples.
    """

    samples: int = 0
    dropped: int = 0
    markers: int = 0
    answered: int = 0
    unknown: int = 0
    late: int = 0
    unknown_labels: list[str] = field(default_factory=list)


class Amplifier:
    """Turns a live participant into the chunks that fall due.

    Parameters
    ----------
    participant : LiveParticipant
    amplitudes : mapping of str to ndarray
        What each picture evokes, by its id: rows of `Participant.code`.
    labels : LabelMatcher
        Finds the picture that a marker names.
    begin : float
        Time of sample 0, in the clock of the markers and of `due`.
    factor : float
        Turns V or T into the unit that is sent.
    misbehaviour : Misbehaviour
    rng : numpy.random.Generator
        Of losses and of jitter.

    Attributes
    ----------
    account : Account
    """

    def __init__(
        self,
        participant: LiveParticipant,
        amplitudes: Mapping[str, NDArray[np.float32]],
        labels: LabelMatcher,
        *,
        begin: float,
        factor: float,
        misbehaviour: Misbehaviour,
        rng: np.random.Generator,
    ) -> None:
        self._participant, self._amplitudes, self._labels = participant, amplitudes, labels
        self._begin, self._factor, self._misbehaviour, self._rng = begin, factor, misbehaviour, rng
        self._chunk = max(1, round(CHUNK_S * participant.sfreq))
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._losing, self._next_loss = 0, self._until_loss()
        self.account = Account()

    def mark(self, event: Event) -> None:
        """Take a marker, from any thread."""
        self._events.put(event)

    def due(self, now: float) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float64]]]:
        """Yield the chunks whose time has come: samples (n, n_channels) and their time stamps (n,)."""
        participant = self._participant
        while self.next_at() <= now:
            self._see_pictures()
            stamps = self._begin + (participant.sent + np.arange(self._chunk)) / participant.sfreq
            data = self._factor * participant.take(self._chunk)
            if self._misbehaviour.drop and self._is_lost():
                self.account.dropped += self._chunk
                continue
            if self._misbehaviour.jitter:
                stamps += JITTER_S * self._rng.normal()
            self.account.samples += self._chunk
            yield data, stamps

    def next_at(self) -> float:
        """Return when the next chunk falls due: `DELAY_S` after its last sample."""
        return self._begin + (self._participant.sent + self._chunk - 1) / self._participant.sfreq + DELAY_S

    def _see_pictures(self) -> None:
        while not self._events.empty():
            event, account = self._events.get(), self.account
            account.markers += 1
            picture = self._labels.name_event(event).label
            if picture not in self._amplitudes:
                account.unknown += 1
                if event.label not in account.unknown_labels and len(account.unknown_labels) < EXAMPLES:
                    account.unknown_labels.append(event.label)
                continue
            account.answered += 1
            onset = event.time - self._begin
            account.late += onset * self._participant.sfreq < self._participant.sent - 1
            self._participant.see(onset, self._amplitudes[picture])

    def _until_loss(self) -> int:
        return int(self._rng.exponential(DROP_EVERY_S / CHUNK_S)) + 1

    def _is_lost(self) -> bool:
        """Return whether the next chunk is among those that are lost together."""
        if not self._losing:
            self._next_loss -= 1
            if self._next_loss > 0:
                return False
            self._losing, self._next_loss = int(self._rng.integers(1, DROP_CHUNKS + 1)), self._until_loss()
        self._losing -= 1
        return True
