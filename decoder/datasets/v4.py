"""Macaque V4: spikes in answer to natural photographs, 89 neurons and 1,200 in session 201025 (Cowley et al. 2023)."""

import io
import re
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decoder.data.stimuli import StimulusTable
from decoder.datasets import Dataset, Selection, require
from decoder.datasets.vectors import numbered_channels, vector_recording
from decoder.errors import DatasetError

WHERE = (
    "github.com/cowleygroup/V4_compact_models at commit f4552ad, data_V4_responses, "
    "in a folder 'v4_natural_images_cowley2023'"
)
DESCRIPTION = "macaque V4 spikes"
SESSION = "201025"
"""What is read where nothing is chosen."""
REPORTED = {SESSION: {"two_way": 0.942}}
HELD_OUT = 0.1
"""Share of the photographs that training never sees."""
WORDS = (
    "Egyptian cat; volleyball; lemon; frog; basketball; cup of coffee; German shepherd dog; golden retriever dog; "
    "teddy bear; cougar; pretzel; banana; orangutan; lawn mower; beer bottle; backpack; black stork; alligator; goose; "
    "fountain; teapot; scorpion; gondola boat; camel; dining table; seashore; suspension bridge; lighthouse; "
    "snowy mountain; trolleybus; tractor; limousine; ladybug; mushroom; school bus; barn; triumphal arch; sunglasses; "
    "tree; sunflower; palm tree; cactus; rose; leaf; grapes; strawberry; broccoli; pizza; bread; fish; shark; whale; "
    "butterfly; spider; snail; snake; turtle; bird; owl; penguin; horse; cow; pig; sheep; elephant; lion; tiger; bear; "
    "monkey; rabbit; car; truck; bicycle; airplane; boat; train; house; castle; tent; chair; couch; bed; lamp; clock; "
    "book; telephone; guitar; piano; drum; umbrella; shoe; dress; hat; mountain; volcano; desert island; sunrise; "
    "night sky; cloud; fire; snowflake; rock; face; man; woman; baby; hand; eye"
)
"""Everyday things, most of them known to the desk models."""


def load(data_dir: Path, selection: Selection) -> Dataset:
    """Read responses, averaged over 12 repeats, and photographs; a random tenth of the photographs is held out.

    Parameters
    ----------
    data_dir : Path
        Holds the folder 'v4_natural_images_cowley2023'.
    selection : Selection
        Its seed chooses the held-out photographs; its session, which is read.

    Raises
    ------
    DatasetError
        If files are missing or do not go together.
    """
    root = data_dir / "v4_natural_images_cowley2023"
    session = selection.session or SESSION
    file = require(root / "responses_repeat_averaged" / f"responses_{session}.npy", WHERE)
    responses = np.load(file, allow_pickle=False).T.astype(np.float32)
    images = _read_images(require(root / "images" / f"images_{session}.zip", WHERE))
    n, n_neurons = responses.shape
    if len(images) != n:
        raise DatasetError(f"{root} holds {len(images)} photographs and responses to {n}; fetch it anew from {WHERE}")
    channels = numbered_channels("unit", n_neurons, "count", name="neuron")
    ids = tuple(f"photo{number:04d}" for number in range(1, n + 1))
    order = np.random.default_rng(selection.seed).permutation(n)
    n_test = round(HELD_OUT * n)
    parts = [
        vector_recording(
            f"v4-photos {name}",
            DESCRIPTION,
            kind="spikes",
            channels=channels,
            labels=[ids[row] for row in rows],
            data=responses[rows],
        )
        for name, rows in (("training", np.sort(order[n_test:])), ("held out", np.sort(order[:n_test])))
    ]
    stimuli = StimulusTable(ids, images)
    words = tuple(WORDS.split("; "))
    reported = REPORTED.get(session, {})
    return Dataset("v4-photos", DESCRIPTION, (parts[0],), parts[1], stimuli, words, reported)


def _read_images(path: Path) -> NDArray[np.uint8]:
    """Read the photographs in the order of their numbers: image0001.jpg answers to the first column."""
    from PIL import Image

    with zipfile.ZipFile(path) as archive:
        files = [name for name in archive.namelist() if re.search(r"\d+\.jpe?g$", name)]
        files.sort(key=lambda name: int(re.findall(r"\d+", Path(name).name)[-1]))
        return np.stack(
            [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in files], dtype=np.uint8
        )
