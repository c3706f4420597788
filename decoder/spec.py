"""Settings of a decoder, as a config gives them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from decoder.classifiers import CategorySpec
from decoder.preprocess import PreprocessSpec


class DecoderSpec(BaseModel):
    """How a ridge decoder is trained."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    features: Annotated[tuple[Literal["c", "z", "s"], ...], Field(min_length=1)] = ("c", "z", "s")
    """Which features are decoded."""
    blocks: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 3, 4, 5, 6)
    """CLIP blocks of 's', counted from 1."""
    unit_fraction: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of each block's units that is kept: the best-decoded by cross-validation."""
    preprocess: PreprocessSpec = PreprocessSpec()
    """What is done to windows first."""
    alphas: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.1, 0.5, 2, 10, 50, 200, 1000)
    """Candidate ridge penalties, in units of the inputs' mean eigenvalue."""
    cv_folds: Annotated[int, Field(ge=2)] = 5
    """Folds of pictures by which penalties, units and confidence are set."""
    hold_out: Literal["none", "groups"] | Annotated[int, Field(ge=2)] = "none"
    """Also fit models that never saw some pictures, and decode those by them: one a group, or so many folds."""
    c_gain: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Ridge shrinks toward the mean. 0 leaves c so; 1 scales its deviations to the true spread."""
    z_gain: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The same for z."""
    s_gain: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The same for each block of s."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the splits."""
    category: CategorySpec | None = None
    """Set: tell categories apart (every stimulus is one) instead of regressing; of `features`, c and z are mixed."""
