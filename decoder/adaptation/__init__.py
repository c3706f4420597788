"""Decoders moved to another session or participant."""
