"""What annotations and markers of files mean: events by one label in every form, bad segments, joints."""

import bisect
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from stream.types.events import Event, event_of
from stream.types.recording import BadSegment

_BAD = re.compile(r"bad(?![a-z])", re.IGNORECASE)
"""Of MNE ('BAD_blink', 'bad acq skip') and BrainVision ('Bad Interval/Bad'); 'badger' is a label."""
_JOINT = re.compile(r"((bad|edge)[ _-]?)?boundary|edge|new[ _-]?segment(/.*)?", re.IGNORECASE)
"""Of EEGLAB, MNE and BrainVision."""
_TYPE = re.compile(r"(Stimulus|Response|Comment)/(?=.)", re.IGNORECASE)
"""BrainVision's types of markers, as MNE writes them before the text; other forms of a recording lack them."""
_ANALYZER = re.compile(r"(time 0|syncstatus|dc correction)(/.*)?", re.IGNORECASE)
"""BrainVision's marks of its own: nothing happened there."""
_CODE = re.compile(r"[SR] *(\d{1,9})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Marks:
    """Annotations of a recording, told apart.

    Attributes
    ----------
    events : tuple of Event
    bad : tuple of BadSegment
    warnings : tuple of str
    """

    events: tuple[Event, ...]
    bad: tuple[BadSegment, ...]
    warnings: tuple[str, ...]


def is_mark(text: str) -> bool:
    """Return whether an annotation marks a bad segment or a joint, and so is no event."""
    text = _TYPE.sub("", text.strip(), count=1)
    return bool(_BAD.match(text) or _JOINT.fullmatch(text))


def sort_marks(annotations: Iterable[tuple[float, float, str | bytes]], begin: float = 0.0) -> Marks:
    """Split annotations into events, bad segments and joints.

    A label is without BrainVision's type ('Stimulus/s10' is 's10'), unless two types have the same text; 'S 10' has
    the code 10. A joint has length 0, also where EEGLAB says how much was cut out: times go on as the file counts them.
    One at the first sample joins nothing and is left out.

    Parameters
    ----------
    annotations : iterable of (float, float, str or bytes)
        Seconds from the recording's start, seconds, and the text.
    begin : float
        Time of the first sample.
    """
    events, bad, cut, left = [], [], [], 0
    for time, length, text in annotations:
        event = event_of(time, text.strip())
        if event is None or not event.label:
            continue
        name = _TYPE.sub("", event.label, count=1)
        if _JOINT.fullmatch(name) or (_BAD.match(name) and not length > 0):
            bad += [BadSegment(time, 0.0, name)] if time > begin else []
            cut += [length] if length > 0 and name.lower() == "boundary" else []
        elif _BAD.match(name):
            bad.append(BadSegment(time, length, name))
        elif _ANALYZER.fullmatch(event.label):
            left += 1
        else:
            events.append(event)
    bad = sorted(dict.fromkeys(bad), key=lambda segment: segment.start)  # mne may say one twice
    warnings = []
    if bad:
        labels = sorted({segment.label for segment in bad})
        warnings.append(f"{len(bad)} bad segments or joints ({', '.join(labels[:5])}): windows over them are rejected")
    if cut:
        warnings.append(f"{sum(cut):.3g} s were cut out at {len(cut)} boundaries; times go on as the file counts them")
    if left:
        warnings.append(f"{left} marks of BrainVision itself ('Time 0', 'SyncStatus' ...) are no events")
    return Marks(_without_types(events), tuple(bad), tuple(warnings))


def _without_types(events: list[Event]) -> tuple[Event, ...]:
    """Remove BrainVision's types from the labels where that leaves different ones different."""
    bare = {event.label: _TYPE.sub("", event.label, count=1) for event in events}
    often = Counter(bare.values())
    out = []
    for event in events:
        text = bare[event.label]
        named = event_of(event.time, text if often[text] == 1 else event.label) or event
        code = _CODE.fullmatch(text)
        out.append(replace(named, code=int(code[1])) if code else named)
    return tuple(out)


def with_triggers(annotated: tuple[Event, ...], triggers: tuple[Event, ...], near: float) -> tuple[Event, ...]:
    """Merge annotations and triggers of a recording; those of the same moment are one event.

    That one has the annotation's label, and the trigger's code where the annotation has none. A trigger beside an
    annotation of another code stays.

    Parameters
    ----------
    annotated, triggers : tuple of Event
    near : float
        Seconds within which both tell of the same moment.
    """
    triggers = tuple(sorted(triggers, key=lambda event: event.time))
    times = [event.time for event in triggers]
    matches: set[int] = set()
    out = []
    for event in annotated:
        around = range(bisect.bisect_left(times, event.time - near), bisect.bisect_right(times, event.time + near))
        twin = next((i for i in around if i not in matches and event.code in {None, triggers[i].code}), None)
        if twin is not None:
            matches.add(twin)
            event = replace(event, code=triggers[twin].code)  # noqa: PLW2901 (the same event, its code known)
        out.append(event)
    out += [event for i, event in enumerate(triggers) if i not in matches]
    return tuple(sorted(out, key=lambda event: event.time))
