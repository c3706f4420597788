"""Tables of pictures, and the features computed from them."""

from pathlib import Path

import numpy as np
import pytest

from decoder.data.stimuli import StimulusTable, read_stimuli, write_stimuli
from decoder.data.targets import compute_targets
from decoder.errors import StimulusError, TrainingError


def test_written_stimuli_are_read_back(tmp_path: Path, stimuli: StimulusTable) -> None:
    """A folder holds the very pixels, ids, captions and groups."""
    several = StimulusTable(
        stimuli.ids,
        stimuli.images,
        tuple((*c, "another") for c in stimuli.captions or ()),
        tuple(f"g{i % 7}" for i in range(len(stimuli))),
    )
    write_stimuli(several, tmp_path / "s")
    again = read_stimuli(tmp_path / "s")
    assert (again.ids, again.captions, again.groups) == (several.ids, several.captions, several.groups)
    np.testing.assert_array_equal(again.images, several.images)


def test_unknown_and_doubled_ids_are_named(stimuli: StimulusTable) -> None:
    """An id that is not there, or is there twice, is told by name."""
    with pytest.raises(StimulusError, match="'nobody'"):
        stimuli.rows(["p1", "nobody"])
    with pytest.raises(StimulusError, match="'a' occurs more than once"):
        StimulusTable(("a", "a"), stimuli.images[:2])
    with pytest.raises(StimulusError, match="2 stimulus ids but 3 images"):
        StimulusTable(("a", "b"), stimuli.images[:3])


def test_missing_table_or_picture_is_named(tmp_path: Path, stimuli: StimulusTable) -> None:
    """A folder without its CSV, or without a picture, gives one line that names the file."""
    with pytest.raises(StimulusError, match=r"stimuli\.csv"):
        read_stimuli(tmp_path)
    write_stimuli(stimuli, tmp_path)
    (tmp_path / "00003.png").unlink()
    with pytest.raises(StimulusError, match=r"00003\.png"):
        read_stimuli(tmp_path)


def test_selection_keeps_pictures_with_their_ids(stimuli: StimulusTable) -> None:
    """A sub-table holds each id's own picture, caption and group."""
    chosen = stimuli.select(["p7", "p2"])
    np.testing.assert_array_equal(chosen.images, stimuli.images[[7, 2]])
    assert chosen.captions == (("caption 7",), ("caption 2",))
    assert chosen.groups == ("p7", "p2")


def test_c_is_the_mean_of_the_captions(stimuli: StimulusTable, encoders) -> None:
    """With several captions a picture, c is the mean of their embeddings."""
    two = StimulusTable(("a",), stimuli.images[:1], (("caption 3", "caption 5"),))
    found = compute_targets(two, encoders, features=("c",)).c
    assert found is not None
    np.testing.assert_allclose(found[0], encoders.encode_text(["caption 3", "caption 5"]).mean(axis=0), rtol=1e-6)


def test_cached_targets_equal_computed_ones(tmp_path: Path, stimuli: StimulusTable, encoders) -> None:
    """The second time nothing is encoded; another picture, or another feature space, is computed anew."""
    steps: list[tuple[str, int, int]] = []
    first = compute_targets(stimuli, encoders, cache=tmp_path, batch=50, progress=lambda *step: steps.append(step))
    assert steps[-1][1:] == (120, 120)
    calls = encoders.calls
    again = compute_targets(stimuli, encoders, cache=tmp_path)
    assert encoders.calls == calls
    np.testing.assert_array_equal(first.z, again.z)
    np.testing.assert_array_equal(first.s[3], again.s[3])
    changed = stimuli.images.copy()
    changed[0, 0, 0, 0] ^= 1
    other = compute_targets(StimulusTable(stimuli.ids, changed, stimuli.captions), encoders, cache=tmp_path)
    assert encoders.calls > calls
    assert (other.z != first.z).any()
    encoders.feature_space = "linear-1"
    calls = encoders.calls
    compute_targets(stimuli, encoders, cache=tmp_path)
    assert encoders.calls > calls


def test_another_choice_computes_only_what_is_not_kept(tmp_path: Path, stimuli: StimulusTable, encoders) -> None:
    """Fewer blocks, or one feature more, cost what is new and nothing else; values are those computed at once."""
    compute_targets(stimuli, encoders, features=("z", "s"), blocks=(1, 3), cache=tmp_path)
    calls = encoders.calls
    fewer = compute_targets(stimuli, encoders, features=("s",), blocks=(3,), cache=tmp_path)
    assert encoders.calls == calls
    assert set(fewer.s) == {3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "encode_latents", None)
        more = compute_targets(stimuli, encoders, features=("z", "s"), blocks=(1, 2, 3), cache=tmp_path)
    whole = compute_targets(stimuli, encoders, features=("z", "s"), blocks=(1, 2, 3))
    assert list(more.s) == list(whole.s) == [1, 2, 3]
    for block, units in whole.s.items():
        np.testing.assert_array_equal(more.s[block], units)
    np.testing.assert_array_equal(more.z, whole.z)


def test_c_needs_captions(stimuli: StimulusTable, encoders) -> None:
    """Asking for c of uncaptioned pictures says so."""
    with pytest.raises(TrainingError, match="captions"):
        compute_targets(StimulusTable(stimuli.ids, stimuli.images), encoders)
