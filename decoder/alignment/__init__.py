"""Moments of sessions and participants, brought onto each other."""
