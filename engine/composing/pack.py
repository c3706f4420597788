"""The emoji pack: drawings of everyday things in several styles, one WebP atlas a style and an index.

Remake it (cairosvg is needed: the `desk` extra) from the packages it was made of, which npm fetches into any folder:

    npm install --prefix DIR @iconify-json/noto@1.2.9 @iconify-json/twemoji@1.2.5 \
        @iconify-json/fluent-emoji-flat@1.2.6 @lobehub/fluent-emoji-3d@1.1.0 emoji-datasource-google@16.0.0
    python -m engine.composing.pack DIR/node_modules models/desk/emoji
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from engine.errors import EngineError
from engine.shipped import shipped
from stream.atomic import write_whole

DESK = shipped("engine") / "models" / "desk"
SIDE = 120
"""Longest side of a drawing, px: at least as large as it is ever shown on 128 px."""
_COLUMNS = 20
_RASTER = 256
_INDEX = "index.json"
_STYLES = {
    "noto": ("@iconify-json/noto", "Apache-2.0", "Noto Emoji, (c) Google"),
    "twemoji": ("@iconify-json/twemoji", "CC-BY-4.0", "Twemoji, (c) Twitter, Inc and other contributors"),
    "fluent-flat": ("@iconify-json/fluent-emoji-flat", "MIT", "Fluent Emoji, (c) Microsoft"),
    "fluent-3d": ("@lobehub/fluent-emoji-3d", "MIT", "Fluent Emoji, (c) Microsoft"),
}
# Names whose words the desk CLIP never learned (to it they mean nothing), and one too long for its 16 tokens.
_UNFIT = {
    *("champagne", "mortar board", "headphones", "tshirt", "mega", "iphone", "tv", "mag", "bullettrain front"),
    *("kiwifruit", "badminton racquet and shuttlecock"),
}
_STYLES_IN_SPLITS = {"flat": "fluent-flat", "fluent3d": "fluent-3d"}


class PackError(EngineError):
    """The emoji pack, or what it is made from, is missing or damaged."""


@dataclass(frozen=True, slots=True)
class Concept:
    """A thing that is drawn.

    Attributes
    ----------
    name : str
        What captions call it, e.g. 'hot dog'.
    codepoint : str
        Unicode, hexadecimal, joined by '-'.
    synonyms : tuple of str
        Other names; may be empty.
    """

    name: str
    codepoint: str
    synonyms: tuple[str, ...]


class Pack:
    """Drawings by concept and style.

    Attributes
    ----------
    concepts : dict of str to Concept
    styles : tuple of str
    licences : dict of str to str
        SPDX name by style.
    drawings : tuple of (str, str)
        Every (concept, style) there is; some concepts lack a style.
    """

    def __init__(self, concepts: dict[str, Concept], licences: dict[str, str], art: dict[tuple[str, str], Image.Image]):
        self.concepts = concepts
        self.licences = licences
        self.styles = tuple(licences)
        self.drawings = tuple(art)
        self._art = art

    def art(self, concept: str, style: str) -> Image.Image:
        """Return one drawing.

        Returns
        -------
        image : PIL.Image.Image
            RGBA, cropped to its alpha box, longest side 120 px. Shared: copy before changing it.

        Raises
        ------
        PackError
            If the pack doesn't hold the drawing.
        """
        try:
            return self._art[concept, style]
        except KeyError:
            msg = f"the emoji pack has no {concept!r} in style {style!r}; see `drawings` for what it has"
            raise PackError(msg) from None


def load_pack(path: Path = DESK / "emoji") -> Pack:
    """Read a pack's index and atlases, about 0.5 s.

    Raises
    ------
    PackError
        If a file is missing or isn't what the index says.
    """
    try:
        index = json.loads((path / _INDEX).read_text(encoding="utf-8"))
        concepts = {c["name"]: Concept(c["name"], c["codepoint"], tuple(c["synonyms"])) for c in index["concepts"]}
        art: dict[tuple[str, str], Image.Image] = {}
        for style, about in index["styles"].items():
            with Image.open(path / about["file"]) as file:
                atlas = file.convert("RGBA")
            for name, (left, top, width, height) in about["boxes"].items():
                art[name, style] = atlas.crop((left, top, left + width, top + height))
    except (OSError, KeyError, ValueError) as error:
        msg = (
            f"no usable emoji pack in {path} ({type(error).__name__}: {error}): remake it with `engine.composing.pack`"
        )
        raise PackError(msg) from error
    return Pack(concepts, {style: about["licence"] for style, about in index["styles"].items()}, art)


def write_pack(packages: Path, out: Path, *, concepts: set[str] | None = None, quality: int = 75) -> list[str]:
    """Rasterise drawings from unpacked npm packages into atlases; the held-out drawings of splits.json are left out.

    Parameters
    ----------
    packages : Path
        The `node_modules` folder with the packages named at the top of this file.
    out : Path
        Folder to write; made when missing.
    concepts : set of str, optional
        Of those in splits.json; default all 430.
    quality : int
        Of WebP, 1 to 100.

    Returns
    -------
    missing : list of str
        Drawings that the packages don't have, as 'concept (style)'.

    Raises
    ------
    PackError
        If a package is missing.
    """
    splits = json.loads((DESK / "stimuli" / "splits.json").read_text(encoding="utf-8"))
    held_out = {(name, _STYLES_IN_SPLITS.get(style, style)) for name, style in splits["held_out_drawings"]}
    chosen = [(name, code) for name, code in splits["concepts"] if concepts is None or name in concepts]
    synonyms = _synonyms(packages, {name for name, _ in splits["concepts"]})
    out.mkdir(parents=True, exist_ok=True)
    missing: list[str] = []
    styles: dict[str, Any] = {}
    for style, (package, licence, author) in _STYLES.items():
        wanted = [(name, code) for name, code in chosen if (name, style) not in held_out]
        art = dict(_draw(packages / package, wanted))
        missing += [f"{name} ({style})" for name, _ in wanted if name not in art]
        file = f"{style}.webp"
        boxes = _write_atlas(art, out / file, quality)
        version = _read_json(packages / package / "package.json")["version"]
        source = f"npm {package} {version}"
        styles[style] = {"file": file, "licence": licence, "author": author, "source": source, "boxes": boxes}
    named = [{"name": name, "codepoint": code, "synonyms": synonyms.get(code, [])} for name, code in chosen]
    write_whole(out / _INDEX, json.dumps({"concepts": named, "styles": styles}, indent=0) + "\n")
    return missing


def crop_to_alpha(image: Image.Image, side: int = SIDE) -> Image.Image:
    """Crop an RGBA image to what is visible (alpha above 8 of 255) and scale its longest side to `side` px."""
    image = image.convert("RGBA")
    box = image.getchannel("A").point([255 * (alpha > 8) for alpha in range(256)]).getbbox()
    if box is None:
        msg = "an emoji drawing is empty: the SVG renderer could not draw it"
        raise PackError(msg)
    image = image.crop(box)
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def _draw(package: Path, wanted: list[tuple[str, str]]) -> Iterator[tuple[str, Image.Image]]:
    """Draw the concepts that a package has: iconify's SVG bodies, or one picture file a codepoint."""
    pictures = package / "assets"
    if pictures.is_dir():
        for name, code in wanted:
            path = pictures / f"{code.lower()}.webp"
            if path.is_file():
                with Image.open(path) as image:
                    yield name, crop_to_alpha(image)
        return
    import cairosvg

    names = _read_json(package / "chars.json")
    icons = _read_json(package / "icons.json")
    size = icons["width"]
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="{size}" height="{size}" viewBox="0 0 {size} {size}">'
    )
    for name, code in wanted:
        icon = names.get(code.lower()) or names.get(code.lower().replace("-fe0f", ""))
        if icon in icons["icons"]:
            svg = f"{head}{icons['icons'][icon]['body']}</svg>".encode()
            png = cairosvg.svg2png(svg, output_width=_RASTER, output_height=_RASTER)
            yield name, crop_to_alpha(Image.open(io.BytesIO(png)))


def _write_atlas(art: dict[str, Image.Image], path: Path, quality: int) -> dict[str, list[int]]:
    """Lay drawings on a grid of cells, write it, and give each one's box: left, top, width, height."""
    atlas = Image.new("RGBA", (SIDE * _COLUMNS, SIDE * max(1, -(-len(art) // _COLUMNS))))
    boxes = {}
    for i, (name, image) in enumerate(art.items()):
        left, top = SIDE * (i % _COLUMNS), SIDE * (i // _COLUMNS)
        atlas.paste(image, (left, top))
        boxes[name] = [left, top, *image.size]
    atlas.save(path, "WEBP", quality=quality, alpha_quality=90, method=6)
    return boxes


def _synonyms(packages: Path, taken: set[str]) -> dict[str, list[str]]:
    """Return the other names that emoji-datasource has, by codepoint, leaving out names that mean another concept."""
    entries = _read_json(packages / "emoji-datasource-google" / "emoji.json")
    known = {entry["unified"]: [s.replace("_", " ") for s in entry["short_names"]] for entry in entries}
    return {
        code: [name for name in names if name not in taken | _UNFIT and not name[-1].isdigit()]
        for code, names in known.items()
    }


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"cannot read {path}: install the npm packages that engine/composing/pack.py names at its top"
        raise PackError(msg) from error


def _stimulus_concepts() -> set[str]:
    with (DESK / "stimuli" / "stimuli.csv").open(newline="", encoding="utf-8") as file:
        return {row["concept"] for row in csv.DictReader(file)}


def main() -> None:
    """Write the pack that comes with the project: the 300 concepts of the held-out stimuli."""
    parser = argparse.ArgumentParser(prog="python -m engine.composing.pack", description=main.__doc__)
    parser.add_argument("packages", type=Path, help="node_modules folder that holds the npm packages")
    parser.add_argument("out", type=Path, help="folder to write, e.g. models/desk/emoji")
    parser.add_argument("--all", action="store_true", help="all 430 concepts, as the models were trained on")
    parser.add_argument("--quality", type=int, default=75, help="of WebP, 1 to 100 (default 75)")
    args = parser.parse_args()
    try:
        concepts = None if args.all else _stimulus_concepts()
        missing = write_pack(args.packages, args.out, concepts=concepts, quality=args.quality)
    except PackError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"wrote {args.out}; not in the packages: {', '.join(missing) or 'none'}\n")


if __name__ == "__main__":
    main()
