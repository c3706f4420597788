"""What is shown: each setup is a config, a protocol and the figures by which it is told."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "docs" / "results"
ABLATIONS = "ablations-"
FULL = "the demo as it is"
"""First variant of most ablations."""


def data_folder() -> Path:
    """Folder of recorded data sets: MINDDIFFUSER_DATA, or shared/data beside the checkout."""
    return Path(os.environ.get("MINDDIFFUSER_DATA") or ROOT.parent / "shared" / "data").resolve()


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table.

    Attributes
    ----------
    key : str
        Its name in what `evaluate` answers; of cross-validation with the feature in front ('s1.two_way').
    label : str
    optional : bool
        Left out where `evaluate` does not give it.
    """

    key: str
    label: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Setup:
    """One step of the results.

    Attributes
    ----------
    name : str
        Of the step and of its files.
    config : str
        Name of the file in configs/.
    protocol : {'test', 'folds', 'ablations'}
        Tested on the config's own test run, cross-validated on all recordings, or compared with parts left out.
    species : {'simulated', 'human', 'macaque'}
    modality, data, split : str
        For the table.
    figures : tuple of Figure
    folder : str
        Of the data set, in the folder of recorded data sets; '' where nothing is needed.
    limit : int or None
        Only the first so many test windows.
    live : bool
        Also replayed over LSL and received over MQTT.
    live_limit : int or None
        Of the test windows, only the first so many so.
    reported : tuple of (str, float)
        Figures that came with the data, by key, besides those that its reader knows.
    note : str
        Why there is no published figure to hold them against, or what to mind when one does.
    """

    name: str
    config: str
    protocol: Literal["test", "folds", "ablations"]
    species: Literal["simulated", "human", "macaque"]
    modality: str
    data: str
    split: str
    figures: tuple[Figure, ...] = ()
    folder: str = ""
    limit: int | None = None
    live: bool = False
    live_limit: int | None = None
    reported: tuple[tuple[str, float], ...] = ()
    note: str = ""

    def unavailable_because(self) -> str:
        """Return what this setup lacks on this machine; '' if nothing."""
        if not (ROOT / "configs" / f"{self.config}.yaml").is_file():
            return f"there is no configs/{self.config}.yaml"
        if self.folder and not (data_folder() / self.folder).is_dir():
            return f"{self.folder} is not in {data_folder()} (MINDDIFFUSER_DATA)"
        return ""


PICTURES = (
    Figure("two_way", "two-way identification, pixels"),
    Figure("two_way_features", "two-way identification, simple features"),
    Figure("two_way_clip", "two-way identification, CLIP"),
    Figure("pixcorr", "PixCorr"),
    Figure("ssim", "SSIM"),
    Figure("concept_top5", "concept among the five nearest names", optional=True),
    Figure("position", "position error (lower is better)", optional=True),
    Figure("size", "size error (lower is better)", optional=True),
    Figure("orientation", "orientation error, degrees (lower is better)", optional=True),
)
SIMULATED = "simulated: no published figure is comparable"
UNSEEN = "300 pictures never seen in training, single presentations"
SOME_UNSEEN = "60 pictures never seen in training, single presentations"
REPORTED = "by whoever put the data together, same recordings"
MUSE_RUN = "run 6, trained on runs 1-5; single trials"
MUSE_RUNS = "one of 6 runs left out at a time, single trials"
FIGURES_LEFT = "one of 20 figures left out at a time, single trials"
FOLDS = "ten folds of 1,200 photographs"
COWLEY = "Cowley et al. 2023 predict responses from pictures, not pictures from responses"
MIYAWAKI = "Miyawaki et al. 2008 trained on random pictures, which this copy lacks"

SETUPS = (
    Setup(
        *("demo", "demo", "test", "simulated", "EEG", "63 channels", UNSEEN, PICTURES),
        live=True,
        live_limit=60,
        note=SIMULATED,
    ),
    Setup(
        *("demo-meg", "demo-meg", "test", "simulated", "MEG", "102 magnetometers", UNSEEN, PICTURES),
        note=SIMULATED,
    ),
    Setup(
        *("demo-fmri", "demo-fmri", "test", "simulated", "fMRI", "V1, V4 and IT", UNSEEN, PICTURES),
        note=SIMULATED,
    ),
    Setup(
        *("muse-faces", "muse-faces", "test", "human", "EEG", "4 dry electrodes, one person", MUSE_RUN),
        figures=(Figure("auc", "face or house, AUC"),),
        folder="muse_eeg_visual",
        note="published by nobody",
    ),
    Setup(
        *("muse-faces-folds", "muse-faces", "folds", "human", "EEG", "4 dry electrodes, one person", MUSE_RUNS),
        figures=(Figure("auc", "face or house, AUC"),),
        folder="muse_eeg_visual",
        note=REPORTED,
    ),
    Setup(
        *("muse-sides-folds", "muse-sides", "folds", "human", "EEG", "4 dry electrodes, one person"),
        split="one of 5 runs left out at a time, single trials",
        figures=(Figure("auc", "grating left or right, AUC"),),
        folder="muse_eeg_visual",
        note=REPORTED,
    ),
    Setup(
        *("ssvep-exo-folds", "ssvep-exo", "folds", "human", "EEG", "8 occipital electrodes, one person"),
        split="one of 2 sessions left out at a time, trials of 3 s",
        figures=(Figure("accuracy", "which of three flickering lights, accuracy"),),
        folder="ssvep_exo_kalunga2016",
        note=REPORTED + "; Kalunga et al. 2016 tell four classes, rest among them",
    ),
    Setup(
        *("haxby-fmri-folds", "haxby-fmri", "folds", "human", "fMRI", "part of one slice, one person"),
        split="one of 12 runs left out at a time, blocks",
        figures=(Figure("accuracy", "which of eight categories, accuracy"),),
        folder="haxby2001_pymvpa_slice",
        note=REPORTED + "; Haxby et al. 2001 compare categories in pairs, on all of ventral temporal cortex",
    ),
    Setup(
        *("v4-photos", "v4-photos", "test", "macaque", "V4 spikes", "89 neurons", "120 photographs never seen"),
        figures=(
            *PICTURES[:5],
            Figure("two_way_clip1", "two-way identification, CLIP block 1, which stage 2 pulls toward"),
        ),
        folder="v4_natural_images_cowley2023",
        live=True,
        note=COWLEY,
    ),
    Setup(
        *("v4-photos-folds", "v4-photos", "folds", "macaque", "V4 spikes", "89 neurons", FOLDS),
        figures=tuple(
            Figure(f"s{block}.two_way", f"two-way identification by decoded CLIP block {block}") for block in (1, 2, 3)
        ),
        folder="v4_natural_images_cowley2023",
        reported=(("s1.two_way", 0.942),),
        note=REPORTED + ", by colour and Gabor features; " + COWLEY,
    ),
    Setup(
        *("miyawaki-fmri", "miyawaki-fmri", "test", "human", "fMRI", "V1, one person", FIGURES_LEFT),
        figures=(PICTURES[3], PICTURES[0], PICTURES[4]),
        folder="miyawaki2008_figures_v1",
        live=True,
        note=MIYAWAKI,
    ),
    Setup(
        *("miyawaki-fmri-folds", "miyawaki-fmri", "folds", "human", "fMRI", "V1, one person", FIGURES_LEFT),
        figures=(
            Figure("picture.pixcorr", "PixCorr of the decoded latent's picture"),
            Figure("picture.top1", "which of 20 figures, by that picture's pixels"),
            Figure("z.top1", "which of 20 figures, by the latent itself"),
        ),
        folder="miyawaki2008_figures_v1",
        note=REPORTED + "; " + MIYAWAKI,
    ),
    *(
        Setup(f"{ABLATIONS}{group}", "demo", "ablations", "simulated", "EEG", "63 channels", SOME_UNSEEN, limit=60)
        for group in ("stages", "modes", "blocks", "text", "repeats", "channels", "windows", "pictures", "ceilings")
    ),
)
"""In the order of the tables."""


def named(names: list[str]) -> list[Setup]:
    """Choose setups by name; all where none is named.

    Raises
    ------
    KeyError
        If there is no setup of a name.
    """
    by_name = {setup.name: setup for setup in SETUPS}
    return [by_name[name] for name in names] if names else list(SETUPS)
