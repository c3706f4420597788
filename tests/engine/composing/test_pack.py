"""The emoji pack: what it holds, and how it is made."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.composing.pack import DESK, SIDE, PackError, crop_to_alpha, load_pack, main, write_pack

SPLITS = json.loads((DESK / "stimuli" / "splits.json").read_text(encoding="utf-8"))
NAMES = {"flat": "fluent-flat", "fluent3d": "fluent-3d"}


@pytest.fixture(scope="module")
def pack():
    """Load the project's pack once."""
    return load_pack()


def test_holds_every_concept_of_the_held_out_stimuli_in_several_styles(pack):
    """A calibration session can show every concept that the test shows, in at least two styles."""
    by_concept = {name: [style for n, style in pack.drawings if n == name] for name in pack.concepts}
    assert len(pack.concepts) == 300
    assert min(len(styles) for styles in by_concept.values()) >= 2
    assert pack.styles == ("noto", "twemoji", "fluent-flat", "fluent-3d")


def test_leaves_out_the_held_out_drawings_and_share_alike_art(pack):
    """No drawing that the models' evaluation holds out, and none under CC BY-SA, is in the pack."""
    held_out = {(name, NAMES.get(style, style)) for name, style in SPLITS["held_out_drawings"]}
    assert not held_out & set(pack.drawings)
    assert set(pack.licences.values()) == {"Apache-2.0", "CC-BY-4.0", "MIT"}


def test_every_drawing_fills_its_box(pack):
    """A drawing's longest side is 120 px and its visible part touches all four edges."""
    for concept, style in pack.drawings:
        alpha = np.asarray(pack.art(concept, style))[..., 3]
        edges = [alpha[:2].max(), alpha[-2:].max(), alpha[:, :2].max(), alpha[:, -2:].max()]
        assert max(alpha.shape) == SIDE, (concept, style)
        assert min(edges) > 0, (concept, style)


def test_stays_a_few_megabytes():
    """The pack is small enough to live in the repository."""
    assert sum(path.stat().st_size for path in (DESK / "emoji").iterdir()) < 4_000_000


def test_a_missing_drawing_is_named(pack):
    """Asking for what isn't there names it."""
    with pytest.raises(PackError, match="'goat' in style 'crayon'"):
        pack.art("goat", "crayon")


def test_a_missing_or_damaged_pack_is_named(tmp_path):
    """A folder without a pack, and a pack whose atlas is cut short, give one message with the folder's name."""
    with pytest.raises(PackError, match=tmp_path.name):
        load_pack(tmp_path)
    shutil.copytree(DESK / "emoji", tmp_path / "cut")
    atlas = tmp_path / "cut" / "noto.webp"
    atlas.write_bytes(atlas.read_bytes()[:1000])
    with pytest.raises(PackError, match="cut"):
        load_pack(tmp_path / "cut")


def test_crop_keeps_what_is_visible():
    """A 30 x 10 px bar on an empty picture becomes 120 x 40 px of nothing but bar."""
    image = Image.new("RGBA", (100, 100))
    image.paste((255, 0, 0, 255), (20, 50, 50, 60))
    cropped = crop_to_alpha(image)
    assert cropped.size == (120, 40)
    assert np.asarray(cropped)[..., 3].min() == 255
    with pytest.raises(PackError, match="empty"):
        crop_to_alpha(Image.new("RGBA", (10, 10)))


def _packages(folder: Path) -> Path:
    """Write packages in the layout of the npm ones: a goat and a cloud as SVG, the goat as WebP too."""
    body = '<rect x="8" y="12" width="16" height="8" fill="#ff0000"/>'
    icons = {"width": 32, "height": 32, "icons": {"goat": {"body": body}, "cloud": {"body": body}}}
    for name in ("noto", "twemoji", "fluent-emoji-flat"):
        package = folder / "@iconify-json" / name
        package.mkdir(parents=True)
        (package / "icons.json").write_text(json.dumps(icons))
        (package / "chars.json").write_text(json.dumps({"1f410": "goat", "2601": "cloud"}))
        (package / "package.json").write_text('{"version": "1.2.3"}')
    package = folder / "@lobehub" / "fluent-emoji-3d"
    (package / "assets").mkdir(parents=True)
    (package / "package.json").write_text('{"version": "1.1.0"}')
    picture = io.BytesIO()
    Image.new("RGBA", (64, 32), (0, 0, 255, 255)).save(picture, "WEBP")
    (package / "assets" / "1f410.webp").write_bytes(picture.getvalue())
    (folder / "emoji-datasource-google").mkdir()
    entries = [{"unified": "1F410", "short_names": ["goat", "billy_goat"]}, {"unified": "2601-FE0F", "short_names": []}]
    (folder / "emoji-datasource-google" / "emoji.json").write_text(json.dumps(entries))
    return folder


def test_a_pack_made_from_packages_reads_back(tmp_path):
    """What is written from SVG and picture packages is read back: shapes, colours, names, sources, what is missing."""
    pytest.importorskip("cairosvg", reason="needs the `desk` extra")
    missing = write_pack(_packages(tmp_path / "npm"), tmp_path / "pack", concepts={"goat", "cloud"})
    made = load_pack(tmp_path / "pack")
    assert missing == ["cloud (fluent-3d)"]
    assert ("cloud", "fluent-flat") not in made.drawings  # held out in splits.json
    assert made.concepts["goat"].synonyms == ("billy goat",)
    assert made.art("goat", "noto").size == (120, 60)
    red, blue = (np.asarray(made.art("goat", style)).reshape(-1, 4).mean(0) for style in ("noto", "fluent-3d"))
    assert np.abs(red - (255, 0, 0, 255)).max() < 12
    assert np.abs(blue - (0, 0, 255, 255)).max() < 12
    index = json.loads((tmp_path / "pack" / "index.json").read_text())
    assert index["styles"]["noto"]["source"] == "npm @iconify-json/noto 1.2.3"


def test_the_command_says_which_package_is_missing(tmp_path, monkeypatch):
    """Without the packages the command ends with one line that names the missing file and the way out."""
    monkeypatch.setattr("sys.argv", ["pack", str(tmp_path), str(tmp_path / "out")])
    with pytest.raises(SystemExit, match=r"emoji\.json.*install the npm packages"):
        main()
