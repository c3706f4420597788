"""Lines to stdout, all the way."""

import os
import sys


def say(text: str = "") -> None:
    """Print lines to stdout, all the way: a full disk must not look like success.

    Raises
    ------
    OSError
        It cannot be written.
    """
    try:
        if text:
            sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as error:
        # What is still in the buffer would be tried, and complained of, once more when Python ends.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        raise type(error)(error.errno, error.strerror, "stdout") from None
