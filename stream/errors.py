"""Errors of the stream package; every message names the thing, its value and the way out."""


class StreamError(Exception):
    """Anything that went wrong between a brain recording and a window, or on the way out."""


class SourceError(StreamError):
    """A live source is missing, ambiguous, duplicated or does not carry what was asked for."""


class RecordingError(StreamError):
    """A recording cannot be read, or lacks something that is needed."""


class PublishError(StreamError):
    """The broker cannot be reached, or refuses what was asked of it."""


class WireError(PublishError):
    """A message that is not what its topic promises.

    Attributes
    ----------
    reason : str
        One of a few words by which such messages are counted; the error's own text names value and way out.
    """

    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason


class OutputError(StreamError):
    """A file or folder that is asked for cannot be written."""
