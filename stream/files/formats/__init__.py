"""Formats of recordings, one module each: what a module lists in `FORMATS` can be read, and nothing else names it."""

import pkgutil
from importlib import import_module

from stream.files.file_format import FileFormat

FORMATS: dict[str, FileFormat] = {
    file_format.suffix: file_format
    for module in pkgutil.iter_modules(__path__)
    for file_format in import_module(f"{__name__}.{module.name}").FORMATS
}
"""By suffix."""
