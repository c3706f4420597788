"""Readers and writers of recordings, one for each format, and the registry that chooses."""
