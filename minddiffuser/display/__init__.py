"""The browser display."""
