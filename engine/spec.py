"""What a configuration may say about the engine; free of heavy imports."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

BackendName = Literal["torch", "torch-compile", "torch-graphs", "onnx", "onnx-tensorrt", "openvino", "tensorrt"]


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
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """Of the UNet and the decoder; auto: float32 on a CPU, float16 on a GPU."""


class StructureSpec(_Spec):
    """Stage 2: how the picture's shallow CLIP features are pulled toward the decoded ones."""

    mode: Literal["none", "fast", "onestep", "exact"] = "fast"
    """fast: gradients on the predicted clean latent only; onestep: through one UNet call; exact: the paper's."""
    iterations: Annotated[int, Field(ge=0, le=10_000)] = 5
    """Adam steps: after each UNet call (fast), or in all (onestep, exact; the paper takes 300). 0 is stage 1."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 0.08
    """Of Adam, in units of the latent's standard deviation (the paper: 0.01)."""
    decay: Annotated[float, Field(gt=0, le=1)] = 0.999
    """Factor on the learning rate after each iteration."""
    proximal: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the squared distance from where the pull began (fast): holds against adversarial texture."""
    anchor: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the squared distance from the decoded z, where there is one (fast): z is decoded structure too."""
    finish: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Strength of one more UNet call after the pull (fast), with c; 0 is none.

    What was pulled is noised so far and cleaned again, which takes away what gradients leave and no picture has: small
    values keep more of the structure, large ones give back more of the meaning that the pull cost."""
    rounds: Annotated[int, Field(ge=1, le=100)] = 1
    """How often a picture is pulled and finished (fast, with finish): what a finish lost of the structure, the next
    round pulls back. Where the decoder tells a latent that goes with the structure (`Features.layout`), the first round
    takes that in place of the pull."""
    draws: Annotated[int, Field(ge=1, le=100)] = 1
    """Noises that each finish tries (fast, with finish), a UNet call each; what fits the decoded structure best is
    kept."""
    guidance: Annotated[float, Field(ge=0, le=50)] | None = None
    """Classifier-free guidance of the finishes (fast); None: as in stage 1. It gives back meaning that the pull cost,
    at twice the UNet's price."""
    layer_weights: tuple[Annotated[float, Field(ge=0)], ...] = (1.5, 1.2, 1.0)
    """Weight of each CLIP block from the first, times 1 / ||target||.

    The paper takes six, (1.5, 1.2, 1, 1, 1, 1); the gradient network of the desk models carries the first three."""
    update: Literal["z", "c", "both"] = "both"
    """What exact and onestep change: the paper's algorithm both, its last published script only z."""
    noise_index: Literal["consistent", "published"] = "consistent"
    """exact with ddim: how far z is noised. consistent: to the first step that is taken; published: three steps of the
    schedule further, as the paper's script does (it noises to step 37 of 50 and decodes from step 35)."""


class ReuseSpec(_Spec):
    """Show the last picture again for windows that are all but the same, and save the work."""

    similarity: Annotated[float, Field(gt=0, lt=1)] = 0.98
    """Cosine of two windows' decoded features above which the later may be skipped; the nearer to 1 the likelier."""
    longest_run: Annotated[int, Field(ge=1, le=1000)] = 10
    """So many windows in a row are skipped at most; the next is always reconstructed."""


class EngineSpec(_Spec):
    """From decoded features to pictures."""

    models: ModelSpec = ModelSpec()
    """Which models to load."""
    backend: Literal[BackendName, "auto"] = "auto"
    """What runs the UNet and the decoder; auto: the fastest that works here (`minddiffuser doctor` says which can)."""
    device: str = "auto"
    """'cpu', 'cuda', 'cuda:1'; auto: the first GPU if there is one."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """Threads of torch on the CPU; 0 leaves torch's own choice."""
    sampler: Literal["auto", "lcm", "ddim", "dpm"] = "auto"
    """lcm for few-step students, ddim for the rest (SD-Turbo too), dpm (DPM-Solver++, 2M) for 8 steps and more; auto:
    lcm or ddim by the scheduler's configuration."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 2
    """UNet calls of a stage."""
    strength: Annotated[float, Field(gt=0, le=1)] = 0.7
    """How far toward noise the decoded latent z is taken before sampling; without z always 1."""
    guidance: Annotated[float, Field(ge=0, le=50)] = 1.0
    """Classifier-free guidance; 1 is none, and half the cost (students and Turbo want none)."""
    structure: StructureSpec = StructureSpec()
    """Stage 2."""
    reuse: ReuseSpec | None = None
    """Set: windows that are all but the same are not reconstructed again."""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """What the process (on a GPU: torch there) may take. The warm-up decodes tile by tile and sees what that takes;
    what is left goes to decoding pictures whole, several at once; if nothing is, it is refused with the figure."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """With a window's id it gives the window's own noise."""
