"""From decoded features to pictures: preview first, then the picture with its structure in place."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decoder.features import Features
from engine.backends.choice import make_backend
from engine.batches import sizes
from engine.cache import EngineCache
from engine.errors import FeatureError
from engine.gradient import load_gradient
from engine.groups import NOT_FINITE, Group, finite, in_order, threads_for
from engine.memory import THRIFTIEST, Decode, decode_by, forget_peak, peak_bytes, plan_decode
from engine.models import Models, load_models, to_uint8
from engine.picture import Picture
from engine.reuse import Reuse
from engine.sampling import (
    Predict,
    begin,
    guided,
    make_schedule,
    sample,
    window_noise,
    window_seed,
)
from engine.spec import EngineSpec
from engine.structure import (
    Targets,
    exact_schedule,
    make_targets,
    pull,
    pull_through,
    report_lost_blocks,
    structure_loss,
)

_log = logging.getLogger(__name__)

MaskedPredict = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""UNet with the mask of its caption's tokens: x, timesteps, c, mask (n, tokens) -> prediction."""


class Reconstructor:
    """Two-stage reconstruction.

    Parameters
    ----------
    spec : EngineSpec
    models : Models, optional
        Loaded models to share; loaded from `spec.models` otherwise.
    cache : Path, optional
        Folder for exported networks and built engines; without one backend 'auto' is torch.

    Attributes
    ----------
    left : dict of str to str
        Backends that 'auto' did not take, and why.

    Raises
    ------
    EngineError
        If models or backend cannot be had, or do not go together.
    """

    def __init__(self, spec: EngineSpec, models: Models | None = None, cache: Path | None = None) -> None:
        self.spec = spec
        if spec.threads:
            torch.set_num_threads(spec.threads)
        self.models = models or load_models(spec.models, spec.device)
        choice = make_backend(spec.backend, self.models, EngineCache(cache) if cache else None)
        self.backend, self.left = choice.backend, choice.left
        self._unet = self.backend.unet
        self._reuse = Reuse(spec.reuse, spec.seed) if spec.reuse else None
        self._decode: Decode = self.backend.decode
        config = self.models.scheduler
        self._exact = exact_schedule(spec, config)
        self._from_z = make_schedule(config, kind=spec.sampler, steps=spec.steps, strength=spec.strength)
        self._from_noise = make_schedule(config, kind=spec.sampler, steps=spec.steps, strength=1.0)
        finish = spec.structure.finish if spec.structure.iterations else 0.0
        self._last = make_schedule(config, kind=spec.sampler, steps=1, strength=finish) if finish else None
        self._view: Callable[[Tensor, Sequence[int]], Mapping[int, Tensor]] = self._true_view
        if spec.structure.mode != "none":
            self._units = self.models.shallow.tokens * self.models.shallow.width
            weights = spec.structure.layer_weights
            self._layer_weights = weights[: self.models.shallow.depth]
            if spec.structure.mode == "fast" and "gradient" in self.models.parts:
                space, device = self.models.feature_space, self.models.device
                network = load_gradient(self.models.parts["gradient"], space, device)
                self._view = lambda x, blocks: self.models.shallow.features(network(x), blocks)

    def warm_up(self, batch: int = 1) -> None:
        """Run both stages on made-up features, so that the first real picture is as fast as the next.

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
            self.rehearse(size)

    def _keep_to(self, budget_gib: float, batches: Sequence[int]) -> None:
        """Decode in slices or tiles that fit beside what all else is seen to take, or refuse."""
        forget_peak(self.models.device)
        self._decode = decode_by(THRIFTIEST, self.backend.decode, self.models)
        for size in batches:
            self.rehearse(size)
        plan = plan_decode(self.models, budget_gib, peak_bytes(self.models.device))
        self._decode = decode_by(plan, self.backend.decode, self.models)
        _log.info("engine.memory_gib: %s", "tiles, by torch" if plan.tiled else f"{plan.slices} pictures at once")

    def rehearse(self, count: int, on_preview: Callable[[list[Picture]], None] | None = None) -> list[Picture]:
        """Reconstruct made-up features, and keep quiet about what becomes of their structure."""
        level = _log.level
        _log.setLevel(logging.ERROR)
        try:
            return self._both_stages(self._made_up(count), on_preview or (lambda _: None))
        finally:
            _log.setLevel(level)

    def _made_up(self, count: int) -> list[Features]:
        m = self.models
        c = torch.from_numpy(m.encode_text([""]))[0].numpy()
        z = np.zeros(m.latent_shape, np.float32)
        s = {}
        if self.spec.structure.mode != "none":
            from decoder.features import LayerTarget

            blocks = range(1, len(self._layer_weights) + 1)
            s = {i: LayerTarget(np.ones(self._units, np.float32), np.ones(self._units, bool)) for i in blocks}
        return [Features(f"made up {i}", c, z, s) for i in range(count)]

    def reconstruct(
        self,
        features: Sequence[Features],
        on_preview: Callable[[list[Picture]], None] | None = None,
        stream: str = "",
    ) -> list[Picture]:
        """Pictures of some windows, in their order.

        Parameters
        ----------
        features : sequence of Features
            Without `z`, sampling begins from pure noise; without (usable) `s`, stage 2 is left out and the picture says
            so in its `note`.
        on_preview : callable, optional
            Called once with the stage-1 pictures of all windows, before stage 2 begins.
        stream : str
            Whose windows these are; windows are reused within a stream only.

        Returns
        -------
        list of Picture
            Of stage 2; of stage 1, with a note, where stage 2 could not be done or did not help. One whose latents or
            pixels came out not finite has a `fault` and nothing to show; the others of its batch are as they would be.

        Raises
        ------
        FeatureError
            If `c` or `z` don't have the shape that the models take.
        """
        if not features:
            return []
        if self._reuse is None:
            return self._both_stages(features, on_preview or (lambda _: None))
        reuse = self._reuse
        sources = [reuse.source(f, stream) for f in features]
        new = [f for f, source in zip(features, sources, strict=True) if source is None]

        def fill(made: list[Picture], stage: int) -> list[Picture]:
            return reuse.fill(features, sources, made, stream=stream, stage=stage)

        def preview(made: list[Picture]) -> None:
            pictures = fill(made, 1)
            if on_preview is not None:
                on_preview(pictures)

        try:
            pictures = fill(self._both_stages(new, preview), 2)
        except Exception:
            reuse.forget(stream)
            raise
        if any(picture.fault for picture in pictures):
            reuse.forget(stream)
        return pictures

    def _both_stages(self, features: Sequence[Features], on_preview: Callable[[list[Picture]], None]) -> list[Picture]:
        groups = self._groups(features)
        for group in groups:
            self._stage1(group)
        on_preview(in_order(groups))
        if self.spec.structure.mode != "none":
            for group in groups:
                self._stage2(group)
        return in_order(groups)

    def _groups(self, features: Sequence[Features]) -> list[Group]:
        usable = [self._check(f) for f in features]
        keys: dict[tuple[bool, bool], list[int]] = {}
        for place, f in enumerate(usable):
            keys.setdefault((f.z is None, f.layout is None), []).append(place)
        batches = []
        for places in keys.values():
            left = iter(places)
            batches += [list(islice(left, size)) for size in sizes(len(places))]
        return [self._group(places, [usable[p] for p in places]) for places in batches]

    def _group(self, places: list[int], features: list[Features]) -> Group:
        device = self.models.device
        with_z = [f.z for f in features if f.z is not None]
        schedule = self._from_z if with_z else self._from_noise
        seeds = [window_seed(self.spec.seed, f.window_id) for f in features]
        noise = window_noise(seeds, len(schedule.steps), self.models.latent_shape).to(device)
        z = torch.from_numpy(np.stack(with_z)).to(device) if with_z else None
        layouts = [f.layout for f in features if f.layout is not None]
        layout = torch.from_numpy(np.stack(layouts)).to(device) if layouts else None
        # all captions of one length, so that windows share a batch and nothing is compiled anew for a shorter one
        c = torch.zeros(len(features), self.models.tokens, self.models.context_dim)
        mask = torch.zeros(c.shape[:2], dtype=torch.bool)
        for i, f in enumerate(features):
            c[i, : len(f.c)] = torch.from_numpy(f.c)
            mask[i, : len(f.c)] = True
        return Group(places, features, schedule, seeds, z, c.to(device), mask.to(device), noise, layout)

    def _check(self, f: Features) -> Features:
        dim, shape = self.models.context_dim, self.models.latent_shape
        if f.c.ndim != 2 or f.c.shape[1] != dim or not 1 <= len(f.c) <= self.models.tokens:
            msg = (
                f"window {f.window_id!r}: c has shape {f.c.shape} and the UNet takes "
                f"(1 to {self.models.tokens} tokens, {dim})"
            )
            raise FeatureError(msg)
        for name, latent in (("z", f.z), ("layout", f.layout)):
            if latent is not None and latent.shape != shape:
                msg = f"window {f.window_id!r}: {name} has shape {latent.shape} and the UNet takes {shape}"
                raise FeatureError(msg)
        if f.z is not None and not np.isfinite(f.z).all():
            _log.warning("window %s: z is not finite; sampling from pure noise", f.window_id)
            f = replace(f, z=None)
        if f.layout is not None and not np.isfinite(f.layout).all():
            _log.warning("window %s: layout is not finite; stage 2 begins at stage 1's picture", f.window_id)
            f = replace(f, layout=None)
        if not np.isfinite(f.c).all():
            _log.warning("window %s: c is not finite; the empty caption takes its place", f.window_id)
            f = replace(f, c=self.models.encode_text([""])[0])
        return f

    def _predict(self, group: Group, unet: MaskedPredict, guidance: float) -> Predict:
        """UNet of a group's own caption masks, with guidance where it is wanted."""
        if guidance == 1:
            return lambda x, t, c: unet(x, t, c, group.mask)
        both = torch.cat([torch.ones_like(group.mask), group.mask])
        return guided(lambda x, t, c: unet(x, t, c, both), guidance, self._null)

    @cached_property
    def _null(self) -> Tensor:
        """The empty caption, (1, tokens, dims)."""
        return torch.from_numpy(self.models.encode_text([""])).to(self.models.device)

    def _stage1(self, group: Group) -> None:
        began = time.perf_counter()
        outputs: list[Tensor] = []
        predict = self._predict(group, self._unet, self.spec.guidance)

        def remembered(x: Tensor, t: Tensor, c: Tensor) -> Tensor:
            outputs.append(predict(x, t, c))
            return outputs[-1]

        x = begin(group.schedule, group.z, group.noise[0])
        latents = sample(remembered, group.schedule, x, group.c, list(group.noise[1:]))
        group.first = outputs[0]
        sampled = time.perf_counter()
        group.pixels = self._decode(latents)
        arrays = to_uint8(group.pixels).cpu().numpy()
        timings = {"stage1": sampled - began, "decode1": time.perf_counter() - sampled}
        faults = ["" if sound else f"stage 1 gave {NOT_FINITE}" for sound in finite(latents, group.pixels)]
        group.pictures = [
            Picture(f.window_id, 1, pixels, seed, self.backend.name, dict(timings), f.confidence, fault=fault)
            for f, pixels, seed, fault in zip(group.features, arrays, group.seeds, faults, strict=True)
        ]

    def _stage2(self, group: Group) -> None:
        began = time.perf_counter()
        targets = make_targets(group.features, self._layer_weights, self._units, self.models.device)
        if not targets.blocks or not any(problem is None for problem in targets.problems):
            self._fall_back(group, [problem or "" for problem in targets.problems])
            return
        report_lost_blocks(group.features, targets)
        latents = self._pulled(group, targets)
        sampled = time.perf_counter()
        pixels = self._decode(latents)
        arrays = to_uint8(pixels).cpu().numpy()
        decoded = time.perf_counter()
        sound = finite(latents, pixels)
        notes = [
            note if finite else f"stage 2 gave {NOT_FINITE}"
            for note, finite in zip(self._judge(group, pixels, targets), sound, strict=True)
        ]
        timings = {"stage2": sampled - began, "decode2": decoded - sampled, "check": time.perf_counter() - decoded}
        self._finish(group, arrays, notes, timings)

    def _pulled(self, group: Group, targets: Targets) -> Tensor:
        structure = self.spec.structure
        if structure.mode == "fast":
            if self._last is not None and group.layout is not None:
                return self._finished(group.layout, group, targets)
            numbers = count()
            assert group.first is not None
            first = group.first
            later = self._predict(group, self._unet, self.spec.guidance)

            def resumed(x: Tensor, t: Tensor, c: Tensor) -> Tensor:
                return first if next(numbers) == 0 else later(x, t, c)

            x = begin(group.schedule, group.z, group.noise[0])
            pulled = sample(
                resumed,
                group.schedule,
                x,
                group.c,
                list(group.noise[1:]),
                refine=lambda _, x0: self._pull(x0, targets, group.z),
            )
            if self._last is None:
                return pulled
            return self._finished(pulled, group, targets)
        schedule = self._exact if self._exact is not None and group.z is not None else group.schedule
        if structure.mode == "onestep":
            strength = 1.0 if group.z is None else self.spec.strength
            schedule = make_schedule(self.models.scheduler, kind=self.spec.sampler, steps=1, strength=strength)
        unet = self.models.unet
        dtype = self.models.dtype

        def differentiable(x: Tensor, t: Tensor, c: Tensor, mask: Tensor) -> Tensor:
            out: Tensor = unet(x.to(dtype), t, c.to(dtype), encoder_attention_mask=mask, return_dict=False)[0]
            return out.float()

        predict = self._predict(group, differentiable, self.spec.guidance)
        return pull_through(predict, schedule, (group.z, group.c, group.noise), self._true_view, targets, structure)

    def _finished(self, pulled: Tensor, group: Group, targets: Targets) -> Tensor:
        """Take away by more UNet calls what gradients leave and no picture has (`structure.finish`).

        Noise decides what a picture becomes, and no gradient goes through it, so several are tried, and the latent
        nearest to the decoded structure is kept.
        """
        assert self._last is not None
        structure = self.spec.structure
        guidance = self.spec.guidance if structure.guidance is None else structure.guidance
        predict = self._predict(group, self._unet, guidance)
        seeds = [(seed + 1) % 2**63 for seed in group.seeds]
        drawn = window_noise(seeds, structure.rounds * structure.draws, self.models.latent_shape)
        x = pulled
        for number, noises in enumerate(torch.split(drawn.to(self.models.device), structure.draws)):
            if number:
                x = self._pull(x, targets, group.z)
            tried = [sample(predict, self._last, begin(self._last, x, noise), group.c, []) for noise in noises]
            x = tried[0] if len(tried) == 1 else self._nearest(tried, targets)
        return x

    def _pull(self, x0: Tensor, targets: Targets, z: Tensor | None) -> Tensor:
        with threads_for(x0):
            return pull(x0, self._view, targets, self.spec.structure, z)

    def _nearest(self, tried: Sequence[Tensor], targets: Targets) -> Tensor:
        """Of several latents of each sample, the one whose structure is nearest to the decoded."""
        with torch.no_grad(), threads_for(tried[0]):
            losses = torch.stack([structure_loss(self._view(x, targets.blocks), targets) for x in tried])
        nearest = torch.nan_to_num(losses, nan=torch.inf).argmin(dim=0)
        return torch.stack(list(tried))[nearest, torch.arange(len(nearest), device=nearest.device)]

    def _true_view(self, latents: Tensor, blocks: Sequence[int]) -> Mapping[int, Tensor]:
        shallow = self.models.shallow
        return shallow.features(shallow.patches(self.models.decode_pixels(latents).float()), blocks)

    def _judge(self, group: Group, pixels: Tensor, targets: Targets) -> list[str]:
        """Why not to take stage 2, by sample ('' to take it); judged on the pictures by CLIP's own features."""
        shallow = self.models.shallow
        assert group.pixels is not None
        with torch.no_grad():
            patches = shallow.patches(torch.cat([group.pixels, pixels]))
            found = shallow.features(patches, targets.blocks)
            n = len(pixels)
            before, after = (
                structure_loss({block: values[part] for block, values in found.items()}, targets)
                for part in (slice(None, n), slice(n, None))
            )
        closer = (after < before).tolist()
        return [
            problem or ("" if better else "stage 2 came no closer to the decoded structure")
            for problem, better in zip(targets.problems, closer, strict=True)
        ]

    def _finish(self, group: Group, arrays: NDArray[np.uint8], notes: list[str], timings: dict[str, float]) -> None:
        self._fall_back(group, notes)
        group.pictures = [
            replace(p, timings=p.timings | timings, **({} if note else {"stage": 2, "pixels": pixels}))
            for p, pixels, note in zip(group.pictures, arrays, notes, strict=True)
        ]

    def _fall_back(self, group: Group, notes: list[str]) -> None:
        for picture, note in zip(group.pictures, notes, strict=True):
            if note:
                _log.warning("window %s: stage 1 stands: %s", picture.window_id, note)
        group.pictures = [replace(p, note=note) for p, note in zip(group.pictures, notes, strict=True)]
