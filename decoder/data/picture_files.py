"""Pictures as a screen showed them, from files of any mode."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from decoder.errors import StimulusError
from stream.types.labels import Spellings, clean, path_of, quote, without_ending

if TYPE_CHECKING:
    from PIL.Image import Image

Colour = tuple[int, int, int]
GREY: Colour = (128, 128, 128)
"""What most stimulus programs show where there is no picture."""


class PictureFolder:
    """Find and read the pictures of a folder.

    Parameters
    ----------
    folder : Path
    background : tuple of int
        RGB that shows through where a picture is transparent.
    size : (int, int), optional
        Width and height to which pictures of another size are fitted: scaled in proportion, and centred.

    Attributes
    ----------
    remarks : Counter of str
        How many pictures had to be changed, by what was done.
    """

    def __init__(self, folder: Path, background: Colour = GREY, size: tuple[int, int] | None = None) -> None:
        self._folder, self._background, self._size = folder, background, size
        self._files: tuple[str, ...] | None = None
        self._spellings: tuple[Spellings, ...] = ()
        self.remarks: Counter[str] = Counter()

    def find(self, name: str) -> Path:
        """Find a picture by its path in the folder, or by a path of another machine that ends in one.

        Raises
        ------
        StimulusError
            It is not there, or several may be meant.
        """
        for spelling in (name, name.replace("\\", "/")):
            if _is_file(path := self._folder / spelling):
                return path
        if self._files is None:
            inside = (file for file in self._folder.rglob("*") if file.is_file())
            self._files = tuple(sorted(file.relative_to(self._folder).as_posix() for file in inside))
            keys = ((_path, _name), (_bare_path, _bare_name))
            self._spellings = tuple(Spellings(self._files, each) for each in keys)
        for spellings in self._spellings:
            if places := spellings.find(name):
                if len(places) > 1:
                    few = ", ".join(quote(self._files[place]) for place in places[:2])
                    raise StimulusError(f"picture {quote(name)} may be {few} of {self._folder}; write which")
                self.remarks["found under another spelling of their path"] += 1
                return self._folder / self._files[places[0]]
        raise StimulusError(f"cannot read picture {self._folder / clean(name)}: no such file")

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Read a picture as RGB, shape (height, width, 3).

        Transparent places show the background, numbers of more than 8 bits are scaled, a photograph is turned as its
        EXIF data say, and of an animation the first frame is taken.

        Raises
        ------
        StimulusError
            The file is no picture, or a broken one.
        """
        from PIL import Image, ImageOps

        try:
            with Image.open(path) as image:
                if getattr(image, "n_frames", 1) > 1:
                    self.remarks["of several frames, of which the first is taken"] += 1
                if image.getexif().get(0x0112, 1) not in {0, 1}:
                    self.remarks["turned as their EXIF data say"] += 1
                return self._rgb(ImageOps.exif_transpose(image))
        except StimulusError as error:
            raise StimulusError(f"cannot read picture {path}: {error}") from None
        except Exception as error:  # what a broken file makes of the decoders cannot be listed
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise StimulusError(f"cannot read picture {path}: {reason}") from None

    def _rgb(self, image: "Image") -> NDArray[np.uint8]:
        from PIL import Image, ImageOps

        if image.mode.startswith("I") or image.mode == "F":
            image = _eight_bits(image)
        if image.has_transparency_data:
            layer = image.convert("RGBA")
            if np.asarray(layer)[..., 3].min() < 255:
                self.remarks[f"transparent in places, where RGB {self._background} shows (data.background)"] += 1
            below = Image.new("RGBA", image.size, (*self._background, 255))
            image = Image.alpha_composite(below, layer)
        image = image.convert("RGB")
        if self._size is not None and self._size != image.size:
            self.remarks[f"fitted to {self._size[0]} x {self._size[1]} (data.picture_size)"] += 1
            image = ImageOps.pad(image, self._size, color=self._background)
        return np.asarray(image)


def _eight_bits(image: "Image") -> "Image":
    """Scale grey of 16 bits, or grey in wide integers or floats, to 8 bits; a grey that is transparent stays so."""
    from PIL import Image

    values = np.asarray(image, dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 65535:
        raise StimulusError(f"grey from {low:g} to {high:g} of an unknown white; save it with 8 or 16 bits")
    if image.mode.startswith("I;16"):
        white = 65535
    else:
        white = 1 if image.mode == "F" and high <= 1 else 255 if high <= 255 else 65535
    grey = Image.fromarray(np.round(values / white * 255).astype(np.uint8))
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):
        grey.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
    return grey


def one_size(names: Sequence[str], images: Sequence[NDArray[np.uint8]], folder: Path) -> NDArray[np.uint8]:
    """Stack pictures into one array, shape (n, height, width, 3).

    Raises
    ------
    StimulusError
        They differ in size; names those that do.
    """
    sizes = Counter(image.shape[:2] for image in images)
    (height, width), n = sizes.most_common(1)[0]
    others = [
        f"{quote(name)} is {image.shape[1]} x {image.shape[0]}"
        for name, image in zip(names, images, strict=True)
        if image.shape[:2] != (height, width)
    ]
    if others:
        raise StimulusError(
            f"the pictures of {folder} differ in size: {n} are {width} x {height}, but {', '.join(others[:3])}"
            f"{f' and {len(others) - 3} more' if len(others) > 3 else ''}; resize them to one, or set "
            f"data.picture_size: [{width}, {height}] to have them fitted"
        )
    return np.stack(images)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or with a zero byte in it
        return False


def _path(text: str) -> str:
    return "/".join(path_of(text))


def _name(text: str) -> str:
    return (path_of(text) or ("",))[-1]


def _bare_path(text: str) -> str:
    return without_ending(_path(text))


def _bare_name(text: str) -> str:
    return without_ending(_name(text))
