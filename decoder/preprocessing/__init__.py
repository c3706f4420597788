"""From windows to the numbers a decoder is fitted to."""
