"""The application: command line, configuration, the live session, the display."""

__version__ = "0.1.0"
