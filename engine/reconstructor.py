"""From decoded features to pictures: preview first, then the picture with its structure in place."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch

from decoder.features import Features, LayerTarget
from engine.backends.base import Backend
from engine.backends.cache import EngineCache
from engine.backends.choice import make_backend
from engine.batching import in_order, make_batches
from engine.final import decode_final
from engine.models.batches import sizes
from engine.models.latent_space import check_latent_space
from engine.models.loading import Models, load_models
from engine.models.memory import THRIFTIEST, Decode, DecodePlan, decode_by, forget_peak, peak_bytes, plan_decode
from engine.picture import NOT_FINITE, Picture
from engine.registry import REFERENCE
from engine.setup import Setup, make_setup
from engine.spec import EngineSpec
from engine.stage1 import generate
from engine.stage2.improve import improve

logger = logging.getLogger(__name__)

OnPreview = Callable[[list[Picture]], None]


class Reconstructor:
    """Two-stage reconstruction.

    Parameters
    ----------
    spec : EngineSpec
    models : Models, optional
        Loaded models to share; loaded from `spec.models` otherwise.
    cache : Path, optional
        Folder for exported networks and built engines; without one backend 'auto' is torch.
    backend : Backend, optional
        One that is open and runs these models; by default that of the specification, proven.

    Attributes
    ----------
    left : dict of str to str
        Backends that 'auto' did not take, and why.
    setup : Setup
        What both stages run on.
    lost : str
        Why it cannot be reached: never, in one's own process.

    Raises
    ------
    EngineError
        If models or backend cannot be had, or do not go together.
    """

    lost = ""

    def __init__(
        self,
        spec: EngineSpec,
        models: Models | None = None,
        cache: Path | None = None,
        backend: Backend | None = None,
    ) -> None:
        self.spec = spec
        if spec.threads:
            torch.set_num_threads(spec.threads)
        self.models = models or load_models(spec.models, spec.device)
        self.left: dict[str, str] = {}
        self._said: set[str] = set()  # reasons why stage 1 stands that were warned of
        if backend is None:
            choice = make_backend(spec.backend, self.models, EngineCache(cache) if cache else None)
            backend, self.left = choice.backend, choice.left
        self.backend = backend
        decode, self._small = self.backend.decode, partial(self.backend.decode, preview=True)
        if self.models.preview_autoencoder is not None:
            check_latent_space(self.models, decode, self._small)
        small_alone = spec.final_decoder == "preview_vae"
        self.setup = make_setup(
            spec,
            self.models,
            self.backend.name,
            self.backend.unet,
            self._small if small_alone else decode,
            None if small_alone or self.models.preview_autoencoder is None else self._small,
        )

    @property
    def backend_name(self) -> str:
        """What runs the UNet."""
        return self.backend.name

    @property
    def about_models(self) -> dict[str, str]:
        """Folder, UNet and feature space of the models."""
        models = self.models
        return {
            "folder": models.spec.folder,
            "unet": models.parts["unet"].name,
            "feature_space": models.feature_space,
        }

    def reconstruct(
        self,
        features: Sequence[Features],
        on_preview: OnPreview | None = None,
        seeds: Sequence[int] | None = None,
    ) -> list[Picture]:
        """Return the pictures of some windows, in their order.

        Parameters
        ----------
        features : sequence of Features
            Without `z`, sampling begins from pure noise; without (usable) `s`, stage 2 is left out and the picture says
            so in its `note`.
        on_preview : callable, optional
            Called once with the stage-1 pictures of all windows, before stage 2 begins.
        seeds : sequence of int, optional
            Of the session that each window is of; the specification's by default.

        Returns
        -------
        list of Picture
            Of stage 2; of stage 1, with a note, where stage 2 could not be done or did not help. One whose latents or
            pixels came out not finite has a `fault` and nothing to show; the others of its batch are as they would be.
            Where the models are in half precision it is tried once more in float32 before that.

        Raises
        ------
        FeatureError
            If `c` or `z` don't have the shape that the models take.
        """
        if not features:
            return []
        pictures = self._again_in_float32(features, self._both_stages(features, on_preview, seeds), seeds)
        for picture in pictures:
            if picture.note:
                level = logging.INFO if picture.note in self._said else logging.WARNING
                logger.log(level, "window %s: stage 1 stands: %s", picture.window_id, picture.note)
                self._said.add(picture.note)
        return pictures

    def _again_in_float32(
        self, features: Sequence[Features], pictures: list[Picture], seeds: Sequence[int] | None
    ) -> list[Picture]:
        """Return pictures of which those that overflowed in half precision were tried once more, in float32."""
        failed = [i for i, p in enumerate(pictures) if NOT_FINITE in p.fault or NOT_FINITE in p.note]
        if not failed or self.models.dtype == torch.float32:
            return pictures
        names = ", ".join(pictures[i].window_id for i in failed)
        logger.warning("window %s: %s in %s; tried again in float32", names, NOT_FINITE, self.models.dtype)
        own = None if seeds is None else [seeds[i] for i in failed]
        retried = self._float32._both_stages([features[i] for i in failed], None, own)
        for i, picture in zip(failed, retried, strict=True):
            pictures[i] = replace(picture, backend=f"{picture.backend} (float32)")
        return pictures

    @cached_property
    def _float32(self) -> "Reconstructor":
        """The same in float32, on plain torch: for what overflows in half precision."""
        models = Models(self.models.spec.model_copy(update={"dtype": "float32"}), str(self.models.device))
        return Reconstructor(self.spec.model_copy(update={"backend": REFERENCE}), models)

    def _both_stages(
        self, features: Sequence[Features], on_preview: OnPreview | None, seeds: Sequence[int] | None = None
    ) -> list[Picture]:
        batches = make_batches(features, self.setup, seeds)
        previews = [generate(batch, self.setup) for batch in batches]
        pictures = [preview.pictures for preview in previews]
        if on_preview is not None:
            on_preview(in_order(batches, pictures))
        latents = [preview.latents for preview in previews]
        if self.spec.structure.mode != "none":
            made = [improve(batch, preview, self.setup) for batch, preview in zip(batches, previews, strict=True)]
            pictures, latents = [one for one, _ in made], [x for _, x in made]
        if self.setup.decode_preview is not None:
            pictures = [decode_final(one, x, self.setup) for one, x in zip(pictures, latents, strict=True)]
        return in_order(batches, pictures)

    def warm_up(self, batch: int = 1) -> None:
        """Run both stages on placeholder features, so that the first real picture is as fast as the next.

        Parameters
        ----------
        batch : int
            Windows that will be reconstructed at once at most: every size of batch that comes of it is run.

        Raises
        ------
        MemoryBudgetError
            If that takes more memory than the configuration allows, even decoding tile by tile.
        """
        batches = list(dict.fromkeys(part for windows in range(1, batch + 1) for part in sizes(windows)))
        if self.spec.memory_gib is not None:
            self._keep_to(self.spec.memory_gib, batches)
        for size in batches:
            self.dry_run(size)

    def _keep_to(self, budget_gib: float, batches: Sequence[int]) -> None:
        """Decode in slices or tiles that fit beside what all else is seen to take, or refuse."""
        forget_peak(self.models.device)
        preview = self.spec.final_decoder == "preview_vae"
        decode = self.setup.decode
        self.setup = self._decoding(decode_by(THRIFTIEST, decode, self.models, preview=preview))
        for size in batches:
            self.dry_run(size)
        plan = plan_decode(self.models, budget_gib, peak_bytes(self.models.device), preview=preview)
        self.setup = self._decoding(decode_by(plan, decode, self.models, preview=preview))
        logger.info("engine.memory_gib: %s", "tiles, by torch" if plan.tiled else f"{plan.slices} pictures at once")

    def _decoding(self, decode: Decode) -> Setup:
        """Return the setup with another decoder; a small one of previews takes one at a time then."""
        small = self.setup.decode_preview and decode_by(DecodePlan(1, False), self._small, self.models)
        return replace(self.setup, decode=decode, decode_preview=small)

    def dry_run(self, count: int, on_preview: OnPreview | None = None) -> list[Picture]:
        """Reconstruct placeholder features, and log nothing of what becomes of them."""
        return self._both_stages(self.placeholders(count), on_preview)

    def placeholders(self, count: int) -> list[Features]:
        """Return features of the models' shapes that mean nothing: the empty caption, z of zeros, s of ones."""
        ones, every = np.ones(self.setup.units, np.float32), np.ones(self.setup.units, bool)
        blocks = range(1, len(self.setup.layer_weights) + 1) if self.spec.structure.mode != "none" else ()
        z = np.zeros(self.models.latent_shape, np.float32)
        s = {block: LayerTarget(ones, every) for block in blocks}
        return [Features(f"placeholder {i}", self.models.empty_caption, z, s) for i in range(count)]
