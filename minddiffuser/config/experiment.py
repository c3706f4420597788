"""The block `experiment` of a config: which pictures are presented, when, how large, and what the participant does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from stream.types.source_spec import StreamSelector

Corner = Literal["top-left", "top-right", "bottom-left", "bottom-right"]
MOST_CODES = 255
"""An 8-bit trigger has no more values above 0, which is the line at rest."""


def _colour(value: str) -> str:
    rgb(value)
    return value


def rgb(colour: str) -> tuple[int, int, int]:
    """Return a colour's red, green and blue; raises ValueError where there is no such colour."""
    from PIL import ImageColor

    red, green, blue, *_ = ImageColor.getrgb(colour)
    return red, green, blue


Colour = Annotated[str, AfterValidator(_colour)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class TaskSpec(_Part):
    """What keeps the participant attentive: a key to press now and then."""

    kind: Literal["repeat", "target"] = "repeat"
    """`repeat`: press when a picture comes twice in a row; `target`: press when one of `targets` comes."""
    share: float = Field(0.05, gt=0, le=0.5)
    """Trials to respond to, as a share of the others; they are shown in addition to these."""
    targets: tuple[str, ...] = ()
    """Ids of the pictures to respond to (kind: target); they are shown as targets only."""
    key: str = Field("space", pattern=r"^[A-Za-z0-9_]{1,32}$")
    """Key to press, by its name in pyglet.window.key ('space', 'enter', 'f', 'num_1')."""
    within_s: float = Field(1.0, gt=0, le=10)
    """Seconds after the picture in which a press counts as a hit."""

    @model_validator(mode="after")
    def _targets_of_target(self) -> TaskSpec:
        if (self.kind == "target") != bool(self.targets):
            raise ValueError("targets goes with kind: target, and names at least one picture")
        return self


class PhotodiodeSpec(_Part):
    """Where a light sensor on the patch is recorded; `present --timing` and `calibrate` read it."""

    stream: StreamSelector | None = None
    """LSL stream that holds the photodiode's channel; null: the source."""
    channel: str = Field(min_length=1)
    """Name of the photodiode's channel in it."""


class ExperimentSpec(_Part):
    """What `minddiffuser present` and `calibrate` show."""

    pictures: Path | None = None
    """Folder of the pictures, with stimuli.csv; null: `data.stimuli`."""
    picture_s: float = Field(0.3, gt=0, le=60)
    """Seconds that a picture is shown, rounded to whole frames."""
    blank_s: float = Field(0.45, ge=0, le=60)
    """Seconds of background after a picture, rounded to whole frames."""
    jitter_s: float = Field(0.0, ge=0, le=30)
    """Each blank is longer or shorter by up to so many seconds, drawn evenly."""
    blocks: int = Field(4, ge=1, le=1000)
    """Blocks of each set, with a break between; fewer where a block would have less than two trials."""
    break_s: float | None = Field(None, ge=0, le=3600)
    """Seconds of a break; null: until the participant presses a key."""
    repeats: int = Field(1, ge=1, le=1000)
    """How often each calibration picture is shown."""
    test_share: float = Field(0.1, ge=0, le=0.9)
    """Share of the pictures that are kept for the test set and never shown in the calibration; pictures of one group
    stay together. 0: no test set."""
    test_repeats: int = Field(4, ge=1, le=1000)
    """How often each test picture is shown."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Of the order, the jitter and the choice of test pictures: the same seed gives the same experiment."""
    size_deg: float = Field(8.0, gt=0, le=120)
    """Length of a picture's longer side in degrees of visual angle."""
    screen_cm: float = Field(53.0, gt=0, le=2000)
    """Width of the lit part of the screen in centimetres."""
    distance_cm: float = Field(70.0, gt=0, le=5000)
    """From the participant's eyes to the screen in centimetres."""
    fixation: bool = True
    """Draw a fixation dot in the middle."""
    background: Colour | None = None
    """Behind and between the pictures, a colour's name or '#rrggbb'; null: `data.background`."""
    patch: Corner | None = "bottom-left"
    """Corner with the patch for a photodiode, white while a picture is shown and else black; null: no patch."""
    patch_cm: float = Field(2.0, gt=0, le=50)
    """Length of the patch's sides in centimetres."""
    refresh_hz: float | None = Field(None, gt=1, le=1000)
    """Frames a second of a screen that does not tell; null: as the screen says, else as measured."""
    task: TaskSpec | None = TaskSpec()
    """Attention task; null: none."""
    codes: Path | None = None
    """Table of trigger codes, 1 to 255, and pictures: written by `present` where there is none, and markers are then
    codes in place of ids. `labels` reads the same table."""
    photodiode: PhotodiodeSpec | None = None
    """Light sensor on the patch, where there is one."""

    @model_validator(mode="before")
    @classmethod
    def _folders(cls, value: Any) -> Any:
        return {} if value is None else value

    @model_validator(mode="after")
    def _jitter_within_blank(self) -> ExperimentSpec:
        if self.jitter_s > self.blank_s:
            raise ValueError(f"jitter_s {self.jitter_s:g} is more than blank_s {self.blank_s:g}, which it shortens")
        if self.photodiode and self.patch is None:
            raise ValueError("photodiode needs a patch to look at: name a corner as patch")
        return self
