"""What a configuration may say about the engine; free of heavy imports."""

import difflib
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from engine.registry import BACKENDS
from engine.stage2_loss.terms import LossWeights


def _known(name: str) -> str:
    if name not in BACKEND_NAMES:
        near = difflib.get_close_matches(name.casefold(), BACKEND_NAMES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"is {name!r}, must be one of {', '.join(BACKEND_NAMES)}{hint}")
    return name


BACKEND_NAMES = ("auto", *BACKENDS)
BackendName = Annotated[str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": list(BACKEND_NAMES)})]
"""A backend of `engine.registry`, or 'auto'."""


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ModelSpec(_Spec):
    """Which models to load; one folder with the usual sub-folders is enough.

    Parts left out are looked for in `folder` under their usual names: `unet-lcm` or `unet`, `vae` or `autoencoder`,
    the scheduler that goes with the UNet, `text_encoder` with `tokenizer` or else `clip`, `clip`, `gradient`.
    A part that is given is a sub-folder of `folder`, another folder, or a hub id ("owner/name[@revision]").
    """

    folder: str = "models/desk"
    """A folder in the layout of diffusers (or of the desk models), or a hub id."""
    unet: str | None = None
    """diffusers UNet2DConditionModel."""
    vae: str | None = None
    """diffusers AutoencoderKL or AutoencoderTiny."""
    preview_vae: str | None = None
    """A small autoencoder of the same latent space (TAESD beside Stable Diffusion's), which decodes the preview."""
    scheduler: str | None = None
    """diffusers scheduler_config.json: the noise schedule and what the UNet predicts."""
    text: str | None = None
    """The UNet's text encoder: transformers CLIPTextModel, or an open_clip model."""
    tokenizer: str | None = None
    """transformers CLIPTokenizer; open_clip models bring their own."""
    clip: str | None = None
    """open_clip model whose shallow features structure is judged by, and whose joint space scores semantics."""
    gradient: str | None = None
    """Small network from latents to CLIP patches that carries the gradients of fast stage 2; 'none' for the decoder."""
    ip_adapter: str | None = None
    """IP-Adapter for the UNet as diffusers reads it, a .safetensors file of the plain kind (ip-adapter_sd15).

    A decoded picture embedding `e`, of the CLIP that it was trained with, then takes part in the picture."""
    ip_adapter_scale: Annotated[float, Field(ge=0, le=2)] = 0.6
    """Weight of the attention to the picture embedding beside that to the caption."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the UNet and the decoder; auto: float32 on a CPU, float16 on a GPU."""


class StructureSpec(_Spec):
    """Stage 2: how the picture's shallow CLIP features are optimised toward the decoded ones."""

    mode: Literal["none", "fast", "onestep", "exact"] = "fast"
    """fast: gradients on the predicted clean latent only; onestep: through one UNet call; exact: the paper's."""
    start: Literal["stage1", "z"] = "stage1"
    """What is optimised (fast): stage 1's latent, after each of its UNet calls, or the decoded z by itself. z is a mean
    over what a window may mean, blurred, where the UNet has drawn detail that the window says nothing of."""
    iterations: Annotated[int, Field(ge=0, le=10_000)] = 5
    """Steps: after each UNet call (fast), or in all (onestep, exact; the paper takes 300). 0 is stage 1."""
    optimiser: Literal["adam", "gradient"] = "adam"
    """adam moves all numbers of the latent about equally far; gradient (descent with momentum, steps of one length)
    moves those far that the structure depends on: as much structure for less of a change in pixels."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.25
    """Length of a step (root mean square over the latent, in units of its standard deviation; the paper: 0.01)."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.999
    """Factor on the learning rate after each iteration."""
    weights: LossWeights = LossWeights()
    """Weights of the terms of the loss (fast)."""
    renoise_strength: Annotated[float, Field(ge=0, le=1)] = 0.55
    """Strength of one more UNet call after the optimisation (fast), with c, as the strength of img2img; 0 is none.

    The optimised latent is noised so far and denoised again, which removes what gradients leave and no picture has:
    small values keep more of the structure, large ones restore more of the meaning that the optimisation cost."""
    refinement_rounds: Annotated[int, Field(ge=1, le=100)] = 2
    """How often a latent is optimised and re-noised (fast, with renoise_strength): the next round restores structure
    that the re-noising lost. Where the decoder predicts a latent that goes with the structure
    (`Features.structure_latent`), the first round takes that in place of the optimisation."""
    candidates: Annotated[int, Field(ge=1, le=100)] = 2
    """Noises that each re-noising tries (fast, with renoise_strength), a UNet call each; the latent that fits the
    decoded structure best is kept."""
    guidance: Annotated[float, Field(ge=0, le=50)] | None = 1.5
    """Classifier-free guidance of the re-noising (fast); None: as in stage 1. It restores meaning that the optimisation
    cost, at twice the UNet's price."""
    structure_latent_share: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of the latent that goes with the structure, where the decoder predicts one, in the final latent (fast, with
    renoise_strength). That latent is a mean over what a window may mean: it has no edges where nothing is known of
    them, and takes from the final picture those that are likely wrong."""
    check: bool = True
    """Whether training reconstructs held-out calibration windows both ways, and stage 2 is left out for a bundle of
    which they say that it does not help; false: it is never left out."""
    layer_weights: tuple[Annotated[float, Field(ge=0)], ...] = (1.5, 1.2, 1.0)
    """Weight of each CLIP block from the first, times 1 / ||target||.

    The paper takes six, (1.5, 1.2, 1, 1, 1, 1); the gradient network of the desk models carries the first three."""


class EngineSpec(_Spec):
    """From decoded features to pictures."""

    models: ModelSpec = ModelSpec()
    """Which models to load."""
    backend: BackendName = "auto"
    """What runs the UNet and the decoder; auto: the fastest that works here (`minddiffuser doctor` says which can)."""
    device: str = "auto"
    """'cpu', 'cuda', 'cuda:1'; auto: the first GPU if there is one."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Threads of torch on the CPU; 0 leaves torch's own choice."""
    sampler: Literal["auto", "lcm", "ddim", "dpm"] = "auto"
    """lcm for few-step students, ddim for the rest (SD-Turbo too), dpm (DPM-Solver++, 2M) for 8 steps and more; auto:
    lcm or ddim by the scheduler's configuration."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 1
    """UNet calls of a stage."""
    strength: Annotated[float, Field(gt=0, le=1)] = 0.6
    """How far toward noise the decoded latent z is taken before sampling; without z always 1."""
    guidance: Annotated[float, Field(ge=0, le=50)] = 1.0
    """Classifier-free guidance; 1 is none, and half the cost (students and Turbo want none)."""
    structure: StructureSpec = StructureSpec()
    """Stage 2."""
    final_decoder: Literal["vae", "preview_vae"] = "vae"
    """With models.preview_vae: which of the two decodes the final picture and carries gradients that go through one."""
    embedding: Literal["beside", "instead"] = "beside"
    """With models.ip_adapter: whether `e` is taken beside the caption `c`, or instead of it (an empty caption then)."""
    embedding_norm: Annotated[float, Field(gt=0)] | None = None
    """Length that `e` is scaled to before it is projected: what is decoded is shorter than what a CLIP gives."""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """What the process (on a GPU: torch there) may take. The warm-up decodes tile by tile and sees what that takes;
    what is left goes to decoding pictures whole, several at once; if nothing is, it is refused with the figure."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """With a window's id it gives the window's own noise."""
    noise: Literal["window", "stream"] = "window"
    """window: each window has noise of its own; stream: all windows of a session share one, so that pictures of like
    windows are alike and change smoothly."""

    @model_validator(mode="after")
    def _has_final_decoder(self) -> Self:
        if self.final_decoder == "preview_vae" and self.models.preview_vae is None:
            raise ValueError("final_decoder is 'preview_vae' and models.preview_vae names none")
        return self
