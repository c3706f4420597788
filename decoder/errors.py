"""Errors of the decoder package; every message names the thing, its value and the way out."""

NO_IMAGE_BANK = "decoder.{} learns from pictures that nobody was shown: set data.image_bank to how many"
"""Of a setting of the decoder, by its name there."""


class DecoderError(Exception):
    """Anything that went wrong between a window and its decoded features."""


class StimulusError(DecoderError):
    """A stimulus is unknown, doubled, or its table does not hold together."""


class DatasetError(DecoderError):
    """A dataset is missing, or is not laid out as published."""


class TrainingError(DecoderError):
    """There is not enough to learn from, or the settings contradict the data."""


class BundleError(DecoderError):
    """A bundle cannot be read, was changed, or does not fit the stream or the engine."""
