"""Training of the convolutional encoder: contrast and squared error, stopped early by pictures kept aside."""

import copy
import logging
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from decoder.data.training_set import TrainingSet
from decoder.encoders.braindecode import make_network
from decoder.encoders.conv import ConvEncoder, Preparation
from decoder.encoders.network import Network
from decoder.errors import TrainingError
from decoder.preprocessing.preprocess import PreprocessSpec, bin_width, noise_whitener, time_bins, time_whitener
from decoder.spec import ConvSpec
from stream.types.progress import Progress, no_progress

Array = NDArray[np.float32]
Rows = NDArray[np.intp]

LEAST_PICTURES = 4
INITIAL_TEMPERATURE = 0.07
LARGEST_SCALE = 100.0
"""Of the contrast's logits, as in CLIP."""
FEW = 8
"""Windows a step for a new subject's layer: of the few there are, most steps come from small ones."""
FINAL_RATE = 1e-2
"""Share of the learning rate that is left at the last epoch."""

logger = logging.getLogger(__name__)


def info_nce(found: Tensor, truth: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
    """Contrast of decoded and true embeddings, both ways (van den Oord et al. 2018; CLIP's form).

    Parameters
    ----------
    found, truth : Tensor, shape (n, d)
    rows : Tensor of int, shape (n,)
        Picture of each; windows of one picture share the credit.
    scale : Tensor
        Inverse temperature.
    """
    logits = scale * functional.normalize(found, dim=1) @ functional.normalize(truth, dim=1).T
    same = (rows[:, None] == rows[None]).float()
    wanted = same / same.sum(dim=1, keepdim=True)
    return (functional.cross_entropy(logits, wanted) + functional.cross_entropy(logits.T, wanted)) / 2


def smooth(x: Tensor, sigma: float, shares: Tensor) -> Tensor:
    """Mix windows with themselves smoothed over time.

    Parameters
    ----------
    x : Tensor, shape (n, channels, times)
    sigma : float
        Standard deviation of the Gaussian, in samples; it is cut, and made to sum to one, at a window's ends.
    shares : Tensor, shape (n,)
        Of the smoothed window in each, from 0 to 1.
    """
    times = torch.arange(x.shape[-1], device=x.device, dtype=x.dtype)
    weights = torch.softmax(-0.5 * ((times[:, None] - times) / sigma) ** 2, dim=1)
    return torch.lerp(x, x @ weights.T, shares[:, None, None])


def fit_encoder(
    samples: TrainingSet,
    embeddings: Array,
    preprocess: PreprocessSpec,
    spec: ConvSpec,
    rng: np.random.Generator,
    progress: Progress = no_progress,
) -> ConvEncoder:
    """Train an encoder; of several subjects' layers it keeps the mean: it serves anybody, and `adapt` starts there.

    Parameters
    ----------
    samples : TrainingSet
    embeddings : ndarray, shape (n_pictures, d), float32
        Deviations from the training mean; rows that no window names are not looked at.
    preprocess : PreprocessSpec
        Times, decimation and whitening; components and compression are not of this encoder.
    spec : ConvSpec
    rng : numpy.random.Generator
        Of the validation split, the weights, the order and the dropout.
    progress : callable

    Raises
    ------
    TrainingError
        If fewer than 4 groups of pictures are left to learn and stop by, or no samples are left by the times chosen.
    """
    train, validation = _split(samples.groups, spec.validation, rng)
    binning = time_bins(samples.times, preprocess)
    step = float(np.diff(samples.times).mean()) if len(samples.times) > 1 else 1.0
    sfreq = 1 / (step * bin_width(samples.times, preprocess))
    seed = int(rng.integers(2**31))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        preparation = fit_preparation(samples.data[train], binning, preprocess)
        n_subjects = int(samples.persons().max()) + 1
        n_channels, n_bins = preparation.mean.shape
        network = make_network((n_channels, n_bins), sfreq, embeddings.shape[1], n_subjects, spec).to(device)
        parameters = list(network.parameters())
        trainer = Trainer(samples, embeddings, preparation, network, spec, sfreq, rng)
        scale = trainer.fit(parameters, train, validation, progress)
        network.subjects = torch.nn.Parameter(network.subjects.detach().mean(dim=0, keepdim=True))
    return ConvEncoder(preparation, network.cpu(), spec, sfreq, scale)


def adapt(
    encoder: ConvEncoder,
    samples: TrainingSet,
    embeddings: Array,
    rng: np.random.Generator,
    progress: Progress = no_progress,
) -> ConvEncoder:
    """Fit the layer of a new subject under a trunk that others trained and that stays as it is.

    A few minutes of data do. As `fit_encoder` otherwise; the layer starts from the encoder's, and without decay, which
    would draw it to nothing. Only the mean response is the new subject's own among what is done to windows first.
    """
    spec = encoder.spec.model_copy(update={"batch": min(FEW, encoder.spec.batch), "weight_decay": 0.0})
    train, validation = _split(samples.groups, encoder.spec.validation, rng)
    preparation = centre_preparation(encoder.preparation, samples.data[train])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        network = copy.deepcopy(encoder.network)
        trainer = Trainer(samples, embeddings, preparation, network, spec, encoder.sfreq, rng)
        scale = trainer.fit([network.subjects], train, validation, progress)
    return ConvEncoder(preparation, network, encoder.spec, encoder.sfreq, scale)


def centre_preparation(preparation: Preparation, data: Array) -> Preparation:
    """Take out the mean response of other windows than those that a preparation was fitted on."""
    mean = (data @ preparation.binning).mean(axis=0, dtype=np.float64)
    return replace(preparation, mean=(preparation.whitener @ mean).astype(np.float32))


def _split(groups: NDArray[np.str_], share: float, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Keep a share of the groups aside, two at least."""
    names = np.unique(groups)
    if len(names) < LEAST_PICTURES:
        raise TrainingError(
            f"{len(names)} pictures to train a convolutional encoder on; give {LEAST_PICTURES} at least, or use ridge"
        )
    aside = rng.permutation(names)[: max(2, round(share * len(names)))]
    held_out = np.isin(groups, aside)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def fit_preparation(data: Array, binning: Array, spec: PreprocessSpec) -> Preparation:
    """Fit whitening (or mere scaling) of channels, that over time, and the mean response, on training windows."""
    binned = data @ binning
    if spec.whiten:
        whitener = noise_whitener(binned)
    else:
        spread = (binned - binned.mean(axis=0)).std(axis=(0, 2), dtype=np.float64)
        live = spread > 1e-6 * spread.max(initial=0)
        whitener = np.diag(np.divide(1, spread, out=np.zeros_like(spread), where=live)).astype(np.float32)
    if spec.whiten_time:
        over = time_whitener(binned, whitener)
        binning, binned = binning @ over, binned @ over
    mean = binned.mean(axis=0, dtype=np.float64)
    return Preparation(binning, whitener, (whitener @ mean).astype(np.float32))


class Trainer:
    """The loop over epochs that fits a network; parameters as of `fit_encoder`, `sfreq` of prepared windows in Hz."""

    def __init__(
        self,
        samples: TrainingSet,
        embeddings: Array,
        preparation: Preparation,
        network: Network,
        spec: ConvSpec,
        sfreq: float,
        rng: np.random.Generator,
    ) -> None:
        device = network.project.weight.device
        subjects = samples.persons()
        self.x = torch.from_numpy(preparation(samples.data)).to(device)
        self.rows = torch.from_numpy(samples.rows.astype(np.int64)).to(device)
        self.subjects = torch.from_numpy(subjects.astype(np.int64)).to(device)
        self.truth = torch.from_numpy(embeddings).to(device)
        self.keys = np.stack([subjects, samples.rows], axis=1)
        self.network, self.spec, self.sfreq, self.rng = network, spec, sfreq, rng

    def fit(self, parameters: list[torch.nn.Parameter], train: Rows, validation: Rows, progress: Progress) -> float:
        """Train to the best validation loss; return the factor that undoes the scaling of the embeddings."""
        spec, network = self.spec, self.network
        unit = float(self.truth[self.rows[torch.from_numpy(train)]].square().mean().sqrt()) or 1.0
        self.truth = self.truth / unit
        temperature = torch.nn.Parameter(torch.tensor(float(np.log(1 / INITIAL_TEMPERATURE))))
        chosen = [
            {"params": parameters, "weight_decay": spec.weight_decay},
            {"params": [temperature], "weight_decay": 0},
        ]
        optimiser = torch.optim.AdamW(chosen, lr=spec.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimiser, spec.epochs, eta_min=FINAL_RATE * spec.learning_rate
        )
        best, best_state, since = np.inf, copy.deepcopy(network.state_dict()), 0
        for epoch in range(spec.epochs):
            progress("training the encoder", epoch, spec.epochs)
            network.train()
            for batch in self._batches(train):
                optimiser.zero_grad()
                self._loss(batch, temperature).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            schedule.step()
            network.eval()
            with torch.no_grad():
                loss = float(self._loss(list(validation[:, None]), temperature, chunk=spec.batch))
            logger.debug("epoch %d: validation loss %.4f", epoch, loss)
            since += 1
            if loss < best:
                best, best_state, since = loss, copy.deepcopy(network.state_dict()), 0
            if since >= spec.patience:
                break
        progress("training the encoder", spec.epochs, spec.epochs)
        network.load_state_dict(best_state)
        network.eval()
        return unit

    def _batches(self, train: Rows) -> list[list[Rows]]:
        """Group windows of a picture at random, so many at a time, and shuffle the groups."""
        order = self.rng.permutation(train)
        order = order[np.lexsort(self.keys[order].T)] if self.spec.average > 1 else order
        if self.spec.average > 1:
            changes = np.any(np.diff(self.keys[order], axis=0) != 0, axis=1)
            parts = [
                whole[i : i + self.spec.average]
                for whole in np.split(order, np.flatnonzero(changes) + 1)
                for i in range(0, len(whole), self.spec.average)
            ]
        else:
            parts = list(order[:, None])
        shuffled = [parts[i] for i in self.rng.permutation(len(parts))]
        # No batch of one: a single window has no spread that a batch normalisation could divide by.
        n_batches = max(1, min(round(len(shuffled) / self.spec.batch), len(shuffled) // 2))
        return [shuffled[i::n_batches] for i in range(n_batches)]

    def _loss(self, parts: list[Rows], temperature: Tensor, *, chunk: int | None = None) -> Tensor:
        """Loss of averaged windows; `chunk` of them go through the network at a time, where gradients are not kept."""
        first = torch.from_numpy(np.array([part[0] for part in parts]))
        x = self.x[first] if all(len(part) == 1 for part in parts) else self._means(parts)
        if self.spec.smoothing and self.network.training:
            x = smooth(x, self.spec.smoothing * self.sfreq, torch.rand(len(x), device=x.device))
        if self.spec.noise and self.network.training:
            x = x + self.spec.noise * torch.randn_like(x)
        rows, size = self.rows[first], chunk or len(x)
        pieces = zip(torch.split(x, size), torch.split(self.subjects[first], size), strict=True)
        found = torch.cat([self.network(one, subjects) for one, subjects in pieces])
        truth = self.truth[rows]
        scale = temperature.exp().clamp(max=LARGEST_SCALE).to(found.device)
        return (1 - self.spec.mse) * info_nce(found, truth, rows, scale) + self.spec.mse * functional.mse_loss(
            found, truth
        )

    def _means(self, parts: list[Rows]) -> Tensor:
        members = torch.from_numpy(np.concatenate(parts))
        owner = torch.from_numpy(np.repeat(np.arange(len(parts)), [len(part) for part in parts])).to(self.x.device)
        sums = torch.zeros((len(parts), *self.x.shape[1:]), device=self.x.device)
        sums.index_add_(0, owner, self.x[members])
        counts = torch.bincount(owner, minlength=len(parts)).to(sums.dtype)
        return sums / counts[:, None, None]
