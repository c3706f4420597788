"""The topics of a session: one entry each, which publisher, subscriber, archive, displays and documentation read.

All topics lie under ``minddiffuser/<session>/``. To add one, write here the model of its JSON and its entry in
`TOPICS`, and publish under its name with `stream.mqtt.publisher.Publisher.publish`.
"""

import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema

from stream.errors import PublishError
from stream.mqtt.wire_models import (
    MAX_TEXT,
    Count,
    Digest,
    Event,
    GuessCount,
    Line,
    Metrics,
    Name,
    Number,
    Numbers,
    Retrieved,
    Scalar,
    State,
    Status,
    Text,
    Wire,
    check_fields,
    read_json,
)

ROOT = "minddiffuser"
MAX_PICTURE = 16 * 2**20
"""Bytes of a picture file; larger ones are neither sent nor taken in."""
MAX_JSON = 2**20
"""Bytes of a JSON message."""
_SESSION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Topic:
    """One kind of message of a session.

    Attributes
    ----------
    name : str
        Last level of the topic.
    carries : str
        'picture' (the bytes of a JPEG, PNG, WebP or GIF file) or 'json' (one object).
    description : str
        One line for people.
    retained : bool
        The broker keeps the last message for late joiners.
    expiry_s : int or None
        Seconds after which an undelivered message is out of date (MQTT 5); None: never.
    qos : int or None
        0 or 1; None: as the publisher is set.
    model : type of Wire or None
        What its JSON must hold, checked whenever it is read; None: any object.
    """

    name: str
    carries: Literal["picture", "json"]
    description: str
    retained: bool = False
    expiry_s: int | None = None
    qos: Literal[0, 1] | None = None
    model: type[Wire] | None = None

    @property
    def max_size(self) -> int:
        """Largest payload in bytes."""
        return MAX_PICTURE if self.carries == "picture" else MAX_JSON


_PICTURES = (
    Topic("original", "picture", "the picture that was shown, where it is known", retained=True),
    Topic("retrieved", "picture", "the likeliest of pictures that nobody was shown: found, not made", retained=True),
    Topic("preview", "picture", "the stage-1 picture, sent as soon as it exists", expiry_s=60),
    Topic("picture", "picture", "the final picture", retained=True),
)
PICTURES = tuple(topic.name for topic in _PICTURES)
"""Names of the topics that carry pictures; each is a stage of a window, too."""
STAGES = (*PICTURES, "abstained")
"""What a meta may go with: a picture of each kind, or none."""


def _check_member(names: tuple[str, ...], name: str) -> str:
    if name not in names:
        raise ValueError(f"Input should be one of {', '.join(names)}")
    return name


Stage = Annotated[
    str, AfterValidator(partial(_check_member, STAGES)), WithJsonSchema({"type": "string", "enum": list(STAGES)})
]
PictureStage = Annotated[
    str, AfterValidator(partial(_check_member, PICTURES)), WithJsonSchema({"type": "string", "enum": list(PICTURES)})
]


class Meta(Wire):
    """What goes with a picture, or in place of one."""

    window_id: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    """The window that the picture is of."""
    stage: Stage
    """The topic of the picture, or that there is none."""
    sha256: dict[PictureStage, Digest]
    """Digest of the file bytes of every picture known of that window by then."""
    n: Count | None = None
    """Running number of the stage; a hole in it is a loss."""
    times: Numbers | None = None
    """LSL seconds of each step: acquired, ready, taken, decoded, stage1, stage2, published."""
    event: Event | Text | None = None
    """What the window was cut around."""
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    """How far the window is to be believed."""
    abstain_below: Annotated[float, Field(ge=0, le=1)] | None = None
    """Least confidence that is shown."""
    categories: Numbers | None = None
    """Probability of each category, where categories are decoded."""
    steps_ms: Numbers | None = None
    """Milliseconds of each step of the engine; of a pool also network, queue and handover."""
    batch: Count | None = None
    """Windows that the picture was made together with, itself included."""
    data: Line | None = None
    """What the pictures are made from ('simulated EEG')."""
    config: Line | None = None
    """Name of the config."""
    reason: Line | None = None
    """Why there is no picture."""
    backend: Line | None = None
    """What ran the networks."""
    caption: Text | None = None
    """Caption of the picture, where it is known."""
    state: State | None = None
    """What became of the window."""
    retrieved: Retrieved | None = None
    """What was retrieved from a bank of pictures, apart from what was made."""
    names: Annotated[list[Name], Field(max_length=10)] | None = None
    """What the final picture seems to show, a guess; nearest first."""
    truth: Line | None = None
    """Name of what was shown, where it is known."""
    right: bool | None = None
    """True if the first name is the truth."""
    told: GuessCount | None = None
    """Count of how often that was so by now."""
    index: Count | None = None
    """Number of the window."""
    of: Count | None = None
    """How many windows there are, where that is known."""
    repeats: Count | None = None
    """Presentations averaged in the window."""
    interpolated: Annotated[list[Line], Field(max_length=5000)] | None = None
    """Channels replaced by what their neighbours measured."""
    seed: Scalar = None
    """Seed of the picture's noise."""
    models: dict[str, Scalar] | None = None
    """Folder, UNet and feature space of the models."""
    samples_lost: Number | None = None
    """Samples of the window that never came."""


TOPICS: dict[str, Topic] = {
    topic.name: topic
    for topic in (
        *_PICTURES,
        Topic("meta", "json", "what goes with each picture; retained beside the final picture only", model=Meta),
        Topic("status", "json", "what the session is doing; last will: offline", retained=True, model=Status),
        Topic("metrics", "json", "what was measured lately, about once a second", expiry_s=10, qos=0, model=Metrics),
    )
}
"""Every topic by name."""
JSON_TOPICS = tuple(name for name in TOPICS if name not in {*PICTURES, "meta"})
"""Names of the topics with messages of their own, which belong to no picture."""


def read(kind: str, payload: bytes, what: str) -> dict[str, Any]:
    """Read a message of a kind and check it against that kind's model, if there is one.

    Returns
    -------
    dict
        As published, unknown fields included.

    Raises
    ------
    WireError
        It does not fit.
    """
    value = read_json(payload, what)
    if kind in TOPICS and (model := TOPICS[kind].model) is not None:
        check_fields(model, value, what)
    return value


def topic_of(session: str, name: str) -> str:
    """Return the full topic of one kind of message; `session` may be the wildcard '+'.

    Raises
    ------
    PublishError
        The session's name cannot be part of a topic.
    """
    return f"{ROOT}/{session if session == '+' else checked_session(session)}/{name}"


def checked_session(name: str) -> str:
    """Return the name of one session, which is part of topics and of file names.

    Raises
    ------
    PublishError
        It cannot be.
    """
    if not is_session_name(name):
        raise PublishError(
            f"session name {name[:80]!r}: use 1 to 64 letters, digits, '.', '_' or '-', neither '.' nor '-' first, "
            "no '.' last, and no name of a device such as CON"
        )
    return name


def is_session_name(name: str) -> bool:
    """Check that a session may be called so: part of a topic, and a plain file name on every system."""
    return _SESSION.fullmatch(name) is not None and not is_device_name(name)


def is_device_name(name: str) -> bool:
    """Check if Windows takes a file name for a device, with whatever ending."""
    return _DEVICE.fullmatch(name) is not None
