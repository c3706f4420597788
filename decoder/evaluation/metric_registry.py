"""The metrics that decoders and reconstructions are judged by: each is one entry and, of pictures, one function here.

Scores, tables, reports, verdict and benchmarks read these; interval, chance, mean image and stage 1 are computed for
every one alike. Settings alone move these figures, so they are fixed here: PixCorr and SSIM at 425 x 425 (bilinear),
SSIM on grey values with a Gaussian window (sigma 1.5) and data range 1, pixel two-way identification at 128 x 128.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from decoder.evaluation.metrics import Floats, Images, correlation_matrix, resize, standardise, two_way
from decoder.parallel import apply_each, in_batches
from decoder.visual_features import low_level, mid_level
from stream.types.progress import Progress, no_progress

SIDE = 425
TWO_WAY_SIDE = 128
AT_ONCE = 64
"""Pictures scored together."""
LEAST_SPREAD = 1e-2
"""A feature that varies less than this share of the one that varies most is the same in all pictures."""
GREY = np.array([0.2125, 0.7154, 0.0721], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure as people know it.

    Attributes
    ----------
    key : str
        Its name in what `train --json` and `evaluate --json` answer.
    label : str
        What tables and charts call it; each word is in the glossary.
    heading : str
        A shorter label for narrow columns; empty: the label.
    unit : str
        Empty for shares and correlations.
    anchor : str
        Section of the glossary that explains it.
    note : str
        What it measures, in a sentence: footnote of reports and, of a metric of pictures, its line of the glossary.
        Empty: the glossary explains the label's words by hand.
    higher_is_better : bool
    counts : bool
        Whether the verdict counts it. Left to it are figures whose chance is known exactly or by permutation, each of
        another kind; not what the mean image wins (SSIM), what stage 2 itself optimises, or what needs hundreds of
        windows to tell from chance (top-1).
    chance : callable or None
        Exact chance, from how many pictures were shown (None where that is not known), or None. None: it is measured.
    without_brain : str
        Key of what is reached without the brain, beside a figure of a decoded feature.
    score : callable or None
        From originals and reconstructions, both (n, height, width, 3) uint8, to a score of each, shape (n,).
    similarity : callable or None
        From k originals and n reconstructions to r[original, reconstruction]: the metric is two-way identification by
        it, whose chance is known by permutation.
    """

    key: str
    label: str
    heading: str = ""
    unit: str = ""
    anchor: str = "figures"
    note: str = ""
    higher_is_better: bool = True
    counts: bool = False
    chance: Callable[[int | None], float | None] | None = None
    without_brain: str = ""
    score: Callable[[Images, Images], Floats] | None = None
    similarity: Callable[[Images, Images], Floats] | None = None

    @property
    def short(self) -> str:
        """Return the heading, or where there is none the label."""
        return self.heading or self.label


def _half(pictures: int | None) -> float | None:  # noqa: ARG001
    return 0.5


def _zero(pictures: int | None) -> float | None:  # noqa: ARG001
    return 0.0


def _first(k: int) -> Callable[[int | None], float | None]:
    """Return the chance of being among the first k of all pictures."""
    return lambda pictures: min(1.0, k / pictures) if pictures else None


def _by_key(*entries: Metric) -> dict[str, Metric]:
    return {metric.key: metric for metric in entries}


def pixcorr(truth: Images, reconstruction: Images) -> Floats:
    """Pearson correlation of RGB pixels, picture by picture, at 425 x 425; shape (n,)."""
    pairs = zip(truth, reconstruction, strict=True)
    similarity = [np.vdot(*(standardise(resize(i[None], SIDE)) for i in pair)) for pair in pairs]
    return np.asarray(similarity, np.float64)


def _grey(image: Images) -> NDArray[np.float32]:
    return np.asarray(resize(image[None], SIDE)[0].astype(np.float32) @ (GREY / np.float32(255)))


def _blur(image: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy.ndimage import gaussian_filter

    blurred: NDArray[np.float32] = gaussian_filter(image, sigma=1.5, truncate=3.5, mode="reflect")
    return blurred


def ssim(truth: Images, reconstruction: Images) -> Floats:
    """Structural similarity, picture by picture; shape (n,).

    Wang et al. 2004 with a Gaussian window (sigma 1.5, truncated at 3.5), population covariance, K1 0.01, K2 0.03 and
    data range 1, averaged over the picture less a 5-pixel rim: scikit-image's `structural_similarity` with
    `gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1`.
    """
    c1, c2, rim = np.float32(0.01**2), np.float32(0.03**2), 5
    out = []
    for pair in zip(truth, reconstruction, strict=True):
        x, y = _grey(pair[0]), _grey(pair[1])
        mx, my = _blur(x), _blur(y)
        vx, vy, cxy = _blur(x * x) - mx * mx, _blur(y * y) - my * my, _blur(x * y) - mx * my
        score = (2 * mx * my + c1) * (2 * cxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
        out.append(score[rim:-rim, rim:-rim].mean(dtype=np.float64))
    return np.array(out)


def pixel_similarity(truth: Images, reconstruction: Images) -> Floats:
    """Correlation matrix of RGB pixels at 128 x 128: what pixel two-way identification is read from."""
    return correlation_matrix(resize(truth, TWO_WAY_SIDE), resize(reconstruction, TWO_WAY_SIDE))


def feature_similarity(truth: Images, reconstruction: Images) -> Floats:
    """Correlation matrix of simple features: what feature two-way identification is read from.

    Contrast, luminance and colour in 6 x 6 cells, saturation and oriented edges in 3 x 3 (`decoder.visual_features`),
    each standardised by its mean and spread over the truths; those in which the truths do not differ are left out.
    Stage 2 does not optimise them, as it does CLIP's.
    """
    own, other = (_simple_features(images) for images in (truth, reconstruction))
    mean, spread = own.mean(axis=0), own.std(axis=0)
    told = spread > LEAST_SPREAD * spread.max()
    return correlation_matrix((own - mean)[:, told] / spread[told], (other - mean)[:, told] / spread[told])


def _simple_features(images: Images) -> NDArray[np.float32]:
    square = resize(images, TWO_WAY_SIDE)
    codes = (low_level(square), mid_level(square))
    return np.concatenate([code.reshape(len(images), -1) for code in codes], axis=1).astype(np.float32)


PICTURE_METRICS = _by_key(
    Metric(
        "pixcorr",
        "PixCorr",
        note="Correlation of the pixels of reconstruction and original at 425 x 425.",
        score=pixcorr,
    ),
    Metric(
        "ssim",
        "SSIM",
        note="Structural similarity at 425 x 425 pixels, of grey values; Gaussian window (sigma 1.5), data range 1. A "
        "picture without detail scores high: the mean image often wins.",
        score=ssim,
    ),
    Metric(
        "two_way",
        "two-way, pixels",
        note="How often what was decoded or drawn is more like the picture shown than like another one, by "
        "correlation.",
        counts=True,
        chance=_half,
        similarity=pixel_similarity,
    ),
    Metric(
        "two_way_features",
        "two-way, simple features",
        note="Two-way identification by simple features: contrast, luminance, colour and edges in cells.",
        counts=True,
        chance=_half,
        similarity=feature_similarity,
    ),
    Metric("two_way_clip", "two-way, CLIP", counts=True, chance=_half),
    Metric("two_way_clip1", "two-way, CLIP block 1 (stage 2's own target)", chance=_half),
    Metric("two_way_alexnet2", "two-way, AlexNet 2", chance=_half),
    Metric("two_way_alexnet5", "two-way, AlexNet 5", chance=_half),
    Metric("two_way_inception", "two-way, Inception", chance=_half),
    Metric("distance_efficientnet", "distance, EfficientNet (lower is better)", higher_is_better=False),
    Metric("distance_swav", "distance, SwAV (lower is better)", higher_is_better=False),
    Metric("retrieval_top1", "retrieval, top-1", chance=_first(1)),
    Metric("retrieval_top5", "retrieval, top-5", chance=_first(5)),
    Metric("concept_top1", "concept, top-1"),
    Metric("concept_top5", "concept, top-5", heading="concept, first five"),
)
"""Of reconstructions, in the order of the tables."""
CATEGORY_METRICS = _by_key(
    Metric(
        "auc",
        "AUC",
        note="How often a window of a category is rated higher for it than a window of another one; mean over "
        "categories.",
        counts=True,
    ),
    Metric("accuracy", "accuracy", note="How often the category rated highest is the one shown.", counts=True),
)
"""Of decoders of categories."""
POSE_METRICS = _by_key(
    Metric("position", "position error (share of the side)", heading="position error", higher_is_better=False),
    Metric("size", "size error (share of the true size)", heading="size error", higher_is_better=False),
    Metric("orientation", "orientation error (degrees)", heading="orientation error", unit="°", higher_is_better=False),
)
"""Errors of where the figure is (`decoder.evaluation.pose.pose_errors`), under `pose`."""
FEATURE_METRICS = _by_key(
    Metric(
        "r",
        "correlation",
        note="Correlation of what was decoded with the truth, over a feature's numbers.",
        chance=_zero,
    ),
    Metric("two_way", "two-way", counts=True, without_brain="baseline"),
    Metric("top1", "top-1", note="The picture shown is the nearest of all to what was decoded."),
    Metric("top5", "top-5"),
    Metric("top10", "top-10"),
)
"""Of one decoded feature on held-out windows."""
DRAWN_METRICS = FEATURE_METRICS | {
    key: replace(metric, without_brain=f"{key}_mean_image", counts=False)
    for key, metric in PICTURE_METRICS.items()
    if metric.score is not None
}
"""Of the pictures that the decoded latents by themselves give, on held-out windows."""
METRICS = (
    *PICTURE_METRICS.values(),
    *CATEGORY_METRICS.values(),
    *POSE_METRICS.values(),
    *FEATURE_METRICS.values(),
)


def picture_scores(gallery: Images, own: NDArray[np.intp], reconstruction: Images) -> dict[str, Floats]:
    """Score reconstructions picture by picture.

    Parameters
    ----------
    gallery : ndarray, shape (k, height, width, 3), uint8
        The pictures shown, each once.
    own : ndarray of int, shape (n,)
        Which of them each reconstruction is held against. With another than the true one in its place, the scores
        are those of chance.
    reconstruction : ndarray, shape (n, height, width, 3), uint8
        Sizes may differ from the gallery's.

    Returns
    -------
    scores : dict
        By key of `PICTURE_METRICS`, those that pixels alone tell: 'pixcorr', 'ssim' and those of
        `identification_scores`, each of shape (n,).
    """
    return pixel_scores(gallery[own], reconstruction) | identification_scores(gallery, own, reconstruction)


def pixel_scores(truth: Images, reconstruction: Images, progress: Progress = no_progress) -> dict[str, Floats]:
    """Score reconstructions by each metric with a `score`, each held against its own original; n scores by key."""
    parts = [slice(start, start + AT_ONCE) for start in range(0, max(1, len(truth)), AT_ONCE)]
    pairs = [(truth[part], reconstruction[part]) for part in parts]
    told = in_batches(progress, AT_ONCE, len(truth))
    scores = apply_each(_pixel_scores, pairs, about="scores of pictures", progress=told)
    return {key: np.concatenate([one[key] for one in scores]) for key in scores[0]}


def _pixel_scores(pair: tuple[Images, Images]) -> dict[str, Floats]:
    return {key: one.score(*pair) for key, one in PICTURE_METRICS.items() if one.score is not None}


def identification_scores(gallery: Images, own: NDArray[np.intp], reconstruction: Images) -> dict[str, Floats]:
    """Identify reconstructions among the pictures shown; parameters as `picture_scores`.

    Returns
    -------
    scores : dict
        'two_way' (on pixels) and 'two_way_features' (on simple features), each of the shape of `own`, which may be
        (permutations, n).
    """
    return {
        key: two_way(one.similarity(gallery, reconstruction), own)
        for key, one in PICTURE_METRICS.items()
        if one.similarity is not None
    }
