"""The application: command line, configuration, the live session, the display."""
