"""Remake the desk models from the emoji pack alone: CLIP, autoencoder, UNet, few-step student, in this order.

    python -m tools.desk.train --out DIR --pictures 200000 --pack DIR_OF_A_PACK_WITH_ALL_CONCEPTS

Neither share-alike art nor photos are used, so that the weights carry no licence but the pack's. Shapes, schedulers and
recipe are those of models/desk (RECIPE.md); a full run wants a GPU, a few steps run anywhere.
"""

import argparse
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from engine.composing.bank import HELD_OUT, Bank, compose_bank
from engine.composing.pack import DESK
from engine.errors import EngineError
from engine.sampling.sampling import alphas_cumprod
from stream.atomic import write_whole
from tools.desk import losses

log = logging.getLogger(__name__)
SEED = 20261122
_EMPTY = 0.1
_LATENT_NOISE = 0.12
_GUIDANCE = (2.5, 3.5)
_SOLVER_STRIDE = 20
_LOG_EVERY_S = 5.0

Loss = Callable[[Any, Any, Tensor], Tensor]
"""(model, its running average, rows of the bank) -> loss."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of one model's training: AdamW under a cosine, after a warm-up over the first twentieth of the steps.

    Attributes
    ----------
    batch, steps : int
    learning_rate, weight_decay : float
    average : float
        Decay of the running average of the weights, which is what is kept.
    """

    batch: int
    steps: int
    learning_rate: float
    weight_decay: float
    average: float


RECIPES = {
    "clip": Recipe(1024, 5446, 1e-3, 0.2, 0.999),
    "autoencoder": Recipe(256, 3880, 1.2e-3, 0.01, 0.998),
    "unet": Recipe(1024, 8175, 8e-4, 0.01, 0.9995),
    "unet-lcm": Recipe(512, 1400, 3e-4, 0.01, 0.99),
}


def optimise(
    model: nn.Module, loss: Loss, rows: Tensor, recipe: Recipe, *, generator: torch.Generator, name: str = ""
) -> tuple[nn.Module, list[float]]:
    """Train a model; of 16-bit arithmetic only what autocast does, and only on a GPU.

    Parameters
    ----------
    model : Module
    loss : callable
    rows : Tensor, shape (n,), int64
        What batches are drawn from.
    recipe : Recipe
    generator : torch.Generator
        On the CPU; draws the batches.
    name : str
        For the log.

    Returns
    -------
    average : Module
        The running average of the weights, in evaluation mode.
    history : list of float
        The loss of every step.

    Raises
    ------
    EngineError
        If the loss is no longer finite.
    """
    device = next(model.parameters()).device
    average = AveragedModel(model, avg_fn=_running_average(recipe.average)).eval().requires_grad_(False)
    optimiser = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    warm_up = max(1, recipe.steps // 20)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, recipe.steps - warm_up))
    rising = torch.optim.lr_scheduler.LinearLR(optimiser, 1 / warm_up, total_iters=warm_up)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, [rising, cosine], [warm_up])
    history: list[Tensor] = []
    said = time.monotonic()
    model.train()
    for step in range(recipe.steps):
        batch = rows[torch.randperm(len(rows), generator=generator)[: recipe.batch]]
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            value = loss(model, average.module, batch)
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        average.update_parameters(model)
        history.append(value.detach())
        if time.monotonic() - said > _LOG_EVERY_S or step + 1 == recipe.steps:
            said = time.monotonic()
            log.info("%s: step %d of %d, loss %.4f", name, step + 1, recipe.steps, value.item())
            if not torch.isfinite(value):
                msg = f"the loss of {name} is {value.item()} at step {step + 1}: lower the learning rate"
                raise EngineError(msg)
    return average.module, torch.stack(history).tolist()


def _running_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    def update(average: Tensor, parameter: Tensor, count: Tensor | int) -> Tensor:
        return average.lerp(parameter, 1 - min(decay, (1 + int(count)) / (10 + int(count))))

    return update


class Trainer:
    """Trains the models one after the other; each is saved, and read back by the next one that needs it.

    Parameters
    ----------
    bank : Bank
    rows : Tensor, int64
        The pictures of the bank that may be trained on.
    out : Path
        Folder that receives the models' folders.
    device : torch.device
    seed : int
    """

    def __init__(self, bank: Bank, rows: Tensor, out: Path, device: torch.device, seed: int = SEED) -> None:
        import open_clip

        self.bank, self.rows, self.out, self.device = bank, rows, out, device
        self.generator = torch.Generator().manual_seed(seed)
        self.noise = torch.Generator(device).manual_seed(seed)
        self._seed = seed
        self._clip_config = json.loads((DESK / "clip" / "open_clip_config.json").read_text(encoding="utf-8"))
        length = self._clip_config["model_cfg"]["text_cfg"]["context_length"]
        self.tokens: Tensor = open_clip.SimpleTokenizer(context_length=length)(list(bank.phrases)).to(device)
        schedule = json.loads((DESK / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
        self.signal = torch.tensor(alphas_cumprod(schedule), dtype=torch.float32, device=device)

    def run(self, name: str, recipe: Recipe) -> list[float]:
        """Train and save one of the models of `RECIPES`; give the loss of every step."""
        make = {
            "clip": self._train_clip,
            "autoencoder": self._train_autoencoder,
            "unet": self._train_unet,
            "unet-lcm": self._train_student,
        }[name]
        return make(recipe)

    def _fit(self, name: str, model: nn.Module, loss: Loss, recipe: Recipe) -> tuple[Any, list[float]]:
        return optimise(model, loss, self.rows, recipe, generator=self.generator, name=name)

    def _new(self, make: Callable[[], Any]) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            return make().to(self.device)

    def _train_clip(self, recipe: Recipe) -> list[float]:
        import open_clip

        model = self._new(lambda: open_clip.CLIP(**self._clip_config["model_cfg"]))
        normal = self._clip_config["preprocess_cfg"]
        mean, std = (torch.tensor(normal[key], device=self.device).view(3, 1, 1) for key in ("mean", "std"))

        def loss(model: Any, _: Any, rows: Tensor) -> Tensor:
            captions = self.bank.draw_captions(rows, self.generator)
            pixels = (self.bank.pixels(rows, self.device) - mean) / std
            images, texts, scale = model(pixels, self.tokens[captions.to(self.device)])
            positive = self.bank.holds(rows, captions).to(self.device)
            return losses.contrast(images.float(), texts.float(), scale.float().clamp(max=100), positive)

        average, history = self._fit("clip", model, loss, recipe)
        _fill_unseen(average.token_embedding.weight, self.tokens)
        self._save_clip(average)
        return history

    def _save_clip(self, model: nn.Module) -> None:
        from safetensors.torch import save_file

        folder = self.out / "clip"
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "open_clip_config.json", json.dumps(self._clip_config, indent=1))
        state = {key: value.half().contiguous().cpu() for key, value in model.state_dict().items()}
        save_file(state, folder / "open_clip_model.safetensors", metadata={"format": "pt"})

    def _train_autoencoder(self, recipe: Recipe) -> list[float]:
        from diffusers import AutoencoderTiny

        config = AutoencoderTiny.load_config(DESK / "autoencoder")
        model = self._new(lambda: AutoencoderTiny.from_config({**config, "scaling_factor": 1.0}))

        def loss(model: Any, _: Any, rows: Tensor) -> Tensor:
            true = self.bank.pixels(rows, self.device)
            latents = model.encode(2 * true - 1).latents
            level = _LATENT_NOISE * torch.rand((len(rows), 1, 1, 1), generator=self.noise, device=self.device)
            made = model.decode(latents + level * self._normal(latents)).sample
            return losses.fidelity((made.float() + 1) / 2, true, latents.float())

        average, history = self._fit("autoencoder", model, loss, recipe)
        spread = self._encode(average, self.rows[:2000]).std().item()
        average.register_to_config(scaling_factor=1 / spread)
        average.half().save_pretrained(self.out / "autoencoder")
        return history

    def _train_unet(self, recipe: Recipe) -> list[float]:
        from diffusers import UNet2DConditionModel

        latents, clip = self._latents(), self._clip()
        model = self._new(lambda: UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(DESK / "unet")))

        def loss(model: Any, _: Any, rows: Tensor) -> Tensor:
            captions = self.bank.draw_captions(rows, self.generator)
            captions[torch.rand(len(rows), generator=self.generator) < _EMPTY] = 0
            clean = latents[rows].to(self.device)
            t = torch.randint(len(self.signal), (len(rows),), generator=self.noise, device=self.device)
            x, velocity = losses.diffuse(clean, self._normal(clean), self.signal[t].view(-1, 1, 1, 1))
            said = model(x, t, encoder_hidden_states=text_states(clip, self.tokens[captions.to(self.device)])).sample
            return torch.nn.functional.mse_loss(said.float(), velocity)

        average, history = self._fit("unet", model, loss, recipe)
        self._save_unet(average, "unet", "scheduler")
        return history

    def _train_student(self, recipe: Recipe) -> list[float]:
        latents, clip = self._latents(), self._clip()
        teacher, model = self._unet(), self._unet().requires_grad_(True)
        grid = torch.arange(_SOLVER_STRIDE - 1, len(self.signal), _SOLVER_STRIDE, device=self.device)

        def loss(model: Any, average: Any, rows: Tensor) -> Tensor:
            captions = self.tokens[self.bank.draw_captions(rows, self.generator).to(self.device)]
            c, empty = text_states(clip, captions), text_states(clip, self.tokens[:1]).expand(len(rows), -1, -1)
            clean = latents[rows].to(self.device)
            t = grid[torch.randint(len(grid), (len(rows),), generator=self.noise, device=self.device)]
            earlier = (t - _SOLVER_STRIDE).clamp(min=0)
            signal = self.signal[t].view(-1, 1, 1, 1)
            before = torch.where(t < _SOLVER_STRIDE, 1.0, self.signal[earlier]).view(-1, 1, 1, 1)
            x, _ = losses.diffuse(clean, self._normal(clean), signal)
            with torch.no_grad():
                both = teacher(x.repeat(2, 1, 1, 1), t.repeat(2), encoder_hidden_states=torch.cat([c, empty])).sample
                guided, plain = both.float().chunk(2)
                low, high = _GUIDANCE
                guidance = low + (high - low) * torch.rand(signal.shape, generator=self.noise, device=self.device)
                x0, noise = losses.clean_from_velocity(x, plain + guidance * (guided - plain), signal)
                stepped = before.sqrt() * x0 + (1 - before).sqrt() * noise
                said = average(stepped, earlier, encoder_hidden_states=c).sample.float()
                target = losses.consistency(stepped, said, before, earlier)
            said = model(x, t, encoder_hidden_states=c).sample.float()
            return losses.pseudo_huber(losses.consistency(x, said, signal, t), target)

        average, history = self._fit("unet-lcm", model, loss, recipe)
        self._save_unet(average, "unet-lcm", "scheduler-lcm")
        return history

    def _normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.noise, device=self.device)

    def _save_unet(self, unet: Any, name: str, scheduler: str) -> None:
        unet.half().save_pretrained(self.out / name)
        shutil.copytree(DESK / scheduler, self.out / scheduler, dirs_exist_ok=True)

    @torch.no_grad()
    def _encode(self, autoencoder: Any, rows: Tensor) -> Tensor:
        parts = (rows[i : i + 100] for i in range(0, len(rows), 100))
        return torch.cat([autoencoder.encode(2 * self.bank.pixels(part, self.device) - 1).latents for part in parts])

    def _latents(self) -> Tensor:
        """Scaled latents of the whole bank, on the CPU: 8 kB a picture."""
        from diffusers import AutoencoderTiny

        autoencoder = self._load(AutoencoderTiny, "autoencoder")
        scale = float(autoencoder.config.scaling_factor)
        return self._encode(autoencoder, torch.arange(len(self.bank))).cpu() * scale

    def _unet(self) -> Any:
        from diffusers import UNet2DConditionModel

        return self._load(UNet2DConditionModel, "unet")

    def _clip(self) -> Any:
        import open_clip

        folder = self._folder("clip")
        model = open_clip.create_model(f"local-dir:{folder}", precision="fp32", device=self.device)
        return model.eval().requires_grad_(False)

    def _load(self, cls: Any, name: str) -> Any:
        model = cls.from_pretrained(
            self._folder(name), torch_dtype=torch.float32, use_safetensors=True, low_cpu_mem_usage=False
        )
        return model.to(self.device).eval().requires_grad_(False)

    def _folder(self, name: str) -> Path:
        folder = self.out / name
        if not list(folder.glob("*.safetensors")):
            msg = f"{folder} holds no trained {name}: train it first (--only {name}), or all models"
            raise EngineError(msg)
        return folder


def text_states(clip: Any, tokens: Tensor) -> Tensor:
    """Text hidden states after ln_final, without projection, under the causal mask: (n, 16, 128)."""
    with torch.no_grad():
        states = clip.token_embedding(tokens) + clip.positional_embedding
        result: Tensor = clip.ln_final(clip.transformer(states, attn_mask=clip.attn_mask))
        return result


@torch.no_grad()
def _fill_unseen(embedding: Tensor, tokens: Tensor) -> None:
    """Set tokens that were never trained to the mean of those that were, so that an unknown word says nothing."""
    seen = torch.zeros(len(embedding), dtype=torch.bool, device=embedding.device)
    seen[tokens.flatten()] = True
    embedding[~seen] = embedding[seen].mean(0)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.desk.train", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for the models")
    parser.add_argument("--pack", type=Path, default=DESK / "emoji", help="emoji pack (default: the project's)")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES), help="models (default: all four)")
    parser.add_argument("--pictures", type=int, default=20_000, help="compositions, 49 kB each (default 20000)")
    parser.add_argument("--steps", type=int, help="of each model (default: the recipe's)")
    parser.add_argument("--batch", type=int, help="of each model (default: the recipe's)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that compose")
    args = parser.parse_args(arguments)
    for option in ("pictures", "steps", "batch", "workers"):
        value = getattr(args, option)
        if value is not None and value < 1:
            parser.error(f"--{option} is {value}: give 1 or more")
    return args


def main(arguments: list[str] | None = None) -> None:
    """Compose the pictures, train the chosen models in order, and note in training.json how."""
    args = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    numbers = [number for number in range(args.pictures) if number % 20 not in HELD_OUT]
    try:
        log.info("composing %d pictures", len(numbers))
        bank = compose_bank(args.pack, numbers, args.seed, workers=args.workers)
        trainer = Trainer(bank, torch.arange(len(bank)), args.out, torch.device(args.device), args.seed)
        for name in (name for name in RECIPES if name in args.only):
            changes = {key: getattr(args, key) for key in ("steps", "batch") if getattr(args, key)}
            recipe = replace(RECIPES[name], **changes)
            began = time.monotonic()
            history = trainer.run(name, recipe)
            note = asdict(recipe) | {
                "seed": args.seed,
                "pictures": len(bank),
                "seconds": round(time.monotonic() - began, 1),
                "last_loss": history[-1],
                "torch": torch.__version__,
            }
            write_whole(args.out / name / "training.json", json.dumps(note, indent=1) + "\n")
    except EngineError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
