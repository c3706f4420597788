"""Settings of a decoder, as a config gives them."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from decoder.estimators.classifiers import CategorySpec
from decoder.estimators.regression import RegressionSpec
from decoder.preprocessing.preprocess import PreprocessSpec

FAMILIES = ("auto", "ridge", "conv", "braindecode")
"""What `decoder.family` may be besides a module of decoder/models with a `fit` of its own."""


class ConvSpec(BaseModel):
    """A convolutional encoder in the family of NICE (Song et al. 2024) and ATM (Li et al. 2024), and its training."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    network: str | None = None
    """A network of braindecode by its name, such as EEGNet, for family 'braindecode'; None: the project's own, to which
    alone filters, kernel and pool belong."""
    parameters: dict[str, int | float | str | bool] = {}
    """What that network's constructor takes, under braindecode's names."""
    filters: Annotated[int, Field(ge=1)] = 32
    """Temporal filters, and as many spatial ones."""
    kernel: Annotated[float, Field(gt=0)] = 0.08
    """Length of the temporal filters, in seconds."""
    pool: Annotated[float, Field(gt=0)] = 0.06
    """Length over which their outputs are averaged, in seconds; neighbours overlap by half."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.7
    """Share of activations left out in training."""
    noise: Annotated[float, Field(ge=0)] = 0.5
    """Standard deviation of noise added to whitened windows in training."""
    smoothing: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of a Gaussian over time, in seconds: in training each window is mixed with itself smoothed by
    it, in a share from 0 to 1 drawn anew each time. 0: none; for *simulated* EEG at 62.5 Hz 0.016 was
    better."""
    mse: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the mean squared error in the loss; the rest is InfoNCE."""
    average: Annotated[int, Field(ge=1)] = 1
    """So many repeats of a picture are averaged in training, put together anew each epoch."""
    epochs: Annotated[int, Field(ge=1)] = 40
    """At most."""
    patience: Annotated[int, Field(ge=1)] = 8
    """Epochs without a better validation loss after which training stops; the best weights are kept."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the training pictures that tell when to stop."""
    batch: Annotated[int, Field(ge=2)] = 256
    """Windows a step."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Of AdamW; falls to 0 as a cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Of AdamW."""
    cv_folds: Annotated[int, Field(ge=2)] = 3
    """Folds of pictures by which it is compared with ridge, scaled, and its confidence learned."""


class StructurePriorSpec(BaseModel):
    """Settings of a network that learns from pictures that nobody was shown how structure hangs together."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    components: Annotated[int, Field(ge=1)] = 32
    """Principal components of a block's patches that it goes by."""
    features: Annotated[int, Field(ge=1)] = 800
    """Principal components of a picture's structure that the encoding model goes by."""
    unit_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of each block's units that is handed on: those that it tells best of held-out windows."""
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 96
    """Of the network's hidden maps."""
    dropout: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """Share of hidden maps left out in training; twice that where all places of a picture speak to all others."""
    epochs: Annotated[int, Field(ge=1)] = 8
    """Through the pictures, each time with other errors."""
    batch: Annotated[int, Field(ge=2)] = 64
    """Pictures a step."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Of AdamW, at its highest; it rises and falls in one cycle."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Of AdamW."""


class EncodingSpec(BaseModel):
    """Settings of an encoding model: the other direction than a decoder, from features of pictures to responses."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    axes: Annotated[int, Field(ge=1)] = 150
    """Principal axes of each group of features that it goes by, at most."""
    features: Annotated[tuple[Literal["blocks", "pooled", "thumbnail", "early"], ...], Field(min_length=1)] = (
        "blocks",
        "pooled",
        "thumbnail",
        "early",
    )
    """What the model goes by: the CLIP blocks of `s`, CLIP's pooled embedding, the picture in 16 x 16 pixels, and what
    early vision computes (oriented energy, contrast, saturation). Blocks alone can be a term of stage 2."""
    posterior: tuple[Literal["z", "s"], ...] = ()
    """Features that are decoded through the model, by what pictures that nobody was shown are like
    (`data.image_bank`), in place of ridge, and `s` in place of the prior of structure too."""


class DecoderSpec(BaseModel):
    """Settings of a decoder's training."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    features: Annotated[tuple[Literal["c", "z", "s", "e"], ...], Field(min_length=1)] = ("c", "z", "s")
    """Which features are decoded; e is the picture's pooled CLIP embedding."""
    family: str = "auto"
    """What decodes e (all else is ridge): ridge, conv, braindecode or auto, whichever of ridge and the encoder tells
    held-out training pictures apart better; both figures are reported. Without e there is nothing to choose, and all is
    ridge. Or a module of decoder/models that has a `fit` of its own: that decodes everything."""
    conv: ConvSpec = ConvSpec()
    """The convolutional encoder, of family 'conv', 'braindecode' or 'auto'."""
    text_embedding_from: Literal["tokens", "embedding", "auto"] = "auto"
    """Decode c token by token, or from e through a prior learned from pictures; auto: the better, as for family.
    Without e, c is decoded token by token."""
    nearest_caption: bool = False
    """Where c is decoded token by token, the nearest caption of pictures that nobody was shown (`data.image_bank`)
    takes its place. A mean of captions is drawn vaguely, a caption surely: also where it is the wrong one. Training
    scores c before."""
    blocks: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 3)
    """CLIP blocks of 's', counted from 1."""
    unit_fraction: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of each block's units that is kept: the best-decoded by cross-validation."""
    structure_prior: StructurePriorSpec | None = None
    """Set ('structure_prior: {}' will do): what ridge decodes of `s` goes through a network that knows how structure
    hangs together, from pictures that nobody was shown (`data.image_bank`)."""
    encoding: EncodingSpec | None = None
    """Set ('encoding: {}' will do): an encoding model is fitted beside the decoder, from features of pictures to the
    responses of one participant, with its noise. Pictures are retrieved by the likelihood that it gives
    (`publish.retrieved`), stage 2 can go by it (`engine.structure.weights.likelihood`; set `encoding.features` to
    [blocks] then), and `maps` shows what drives which channels."""
    preprocess: PreprocessSpec = PreprocessSpec()
    """What is done to windows first."""
    alphas: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (0.1, 0.5, 2, 10, 50, 200, 1000)
    """Candidate ridge penalties, in units of the inputs' mean eigenvalue."""
    regression: RegressionSpec = RegressionSpec()
    """Settings of the choice of penalties."""
    cv_folds: Annotated[int, Field(ge=2)] = 5
    """Folds of pictures by which penalties, units and confidence are set."""
    split: Literal["picture", "run", "session", "subject", "window"] = "picture"
    """What is never on both sides of a fold; pictures never are, whatever is said here. window: single windows at
    random, which is refused where a picture is shown more than once."""
    hold_out: Literal["none", "groups"] | Annotated[int, Field(ge=2)] = "none"
    """Also fit models that never saw some pictures, and decode those by them: one a group, or so many folds."""
    c_gain: Annotated[float, Field(ge=0, le=2)] = 1.0
    """Ridge shrinks toward the mean. 0 leaves c so, which is nearest to the truth on average; 1 scales its deviations
    to the true spread; 2 does so twice, after which the decoded features of one picture are right on average."""
    z_gain: Annotated[float, Field(ge=0, le=2)] = 0.5
    """The same for z."""
    s_gain: Annotated[float, Field(ge=0, le=2)] = 2.0
    """The same for each block of s."""
    s_whitening: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Principal components of each decoded block of s are divided by their variance among pictures to this power, and
    left out where held-out windows do not confirm them; the spread of the block stays. Pictures are told apart by small
    components too, which ridge decodes small: 0.75 where responses say much, as spikes do. 0 leaves s as ridge has it,
    which is what training scores in any case."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the splits."""
    category: CategorySpec | None = None
    """Set: tell categories apart (every stimulus is one) instead of regressing; of `features`, c and z are mixed."""

    @model_validator(mode="after")
    def _inputs_are_channels(self) -> Self:
        if self.preprocess.kernel != "linear" and self.category is not None:
            raise ValueError("a category decoder needs inputs as they are: set preprocess.kernel to linear")
        return self

    @model_validator(mode="after")
    def _needs_embedding(self) -> Self:
        asked = [
            f"{key} {value!r}"
            for key, value in (("family", self.family), ("text_embedding_from", self.text_embedding_from))
            if value in {"conv", "braindecode", "embedding"}
        ]
        if self.category is None and asked and "e" not in self.features:
            raise ValueError(f"{' with '.join(asked)} decodes the pooled embedding: add e to features")
        return self

    @model_validator(mode="after")
    def _names_a_network(self) -> Self:
        if self.family == "braindecode" and self.conv.network is None:
            raise ValueError("family 'braindecode' needs conv.network, such as EEGNet")
        if self.family not in {"braindecode", "auto"} and self.conv.network is not None:
            raise ValueError(f"conv.network {self.conv.network!r} is braindecode's: set family to braindecode or auto")
        return self

    @model_validator(mode="after")
    def _decodes_what_captions_say(self) -> Self:
        if self.nearest_caption and ("c" not in self.features or self.category is not None):
            raise ValueError("nearest_caption takes the place of decoded c: add c to features, or take it out")
        if self.nearest_caption and (self.may_use_prior or self.family not in FAMILIES):
            raise ValueError(
                "nearest_caption is for c decoded token by token, by ridge: set text_embedding_from to tokens, and "
                "family to ridge"
            )
        return self

    @model_validator(mode="after")
    def _whitens_what_ridge_decodes(self) -> Self:
        through = self.encoding.posterior if self.encoding is not None else ()
        if self.s_whitening and ("s" not in self.features or self.category is not None or self.family not in FAMILIES):
            raise ValueError("s_whitening is of s that ridge decodes: add s to features, or leave it out")
        if self.s_whitening and "s" in through:
            raise ValueError("s_whitening is of s that ridge decodes: take s out of encoding.posterior")
        return self

    @model_validator(mode="after")
    def _has_structure(self) -> Self:
        if self.structure_prior is not None and ("s" not in self.features or self.category is not None):
            raise ValueError("structure_prior is of decoded structure: add s to features, or take structure_prior out")
        if self.encoding is not None:
            if self.category is not None:
                raise ValueError("encoding goes by features of pictures, not by categories: take encoding out")
            if "blocks" in self.encoding.features and "s" not in self.features:
                raise ValueError(
                    "encoding goes by the structure of pictures: add s to features, or take blocks out of "
                    "encoding.features"
                )
            if absent := [feature for feature in self.encoding.posterior if feature not in self.features]:
                raise ValueError(f"encoding.posterior decodes {absent[0]}: add it to features, or take it out there")
            if "s" in self.encoding.posterior and self.structure_prior is not None:
                raise ValueError("encoding.posterior of s takes the place of structure_prior: leave one of them out")
        return self

    @property
    def may_encode(self) -> bool:
        """Return whether an encoder may decode e."""
        return "e" in self.features and self.family in {"conv", "braindecode", "auto"}

    @property
    def seen(self) -> tuple[str, ...]:
        """Return what the encoding model goes by beside the blocks of `s`."""
        return () if self.encoding is None else tuple(kind for kind in self.encoding.features if kind != "blocks")

    @property
    def image_bank_features(self) -> tuple[str, ...]:
        """Features of pictures that nobody was shown from which something learns."""
        wanted = {"c", "e"} if self.may_use_prior else set()
        if self.nearest_caption:
            wanted.add("c")
        if self.structure_prior is not None:
            wanted.add("s")
        if self.encoding is not None and self.encoding.posterior:
            wanted |= {*self.encoding.posterior, *(("s",) if "blocks" in self.encoding.features else ())}
        return tuple(sorted(wanted))

    @property
    def may_use_prior(self) -> bool:
        """Return whether c may come from e."""
        return {"c", "e"} <= set(self.features) and self.text_embedding_from != "tokens"
