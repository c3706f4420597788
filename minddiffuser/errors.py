"""Errors of the application."""


class AppError(Exception):
    """A one-line message for the person at the keyboard: what is wrong, and what to do."""


class ConfigError(AppError):
    """A config file cannot be read or does not hold what it must."""
