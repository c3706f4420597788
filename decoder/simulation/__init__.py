"""Simulated participants."""

VERSION = 1
"""Of what participants answer: raise it when the same settings and seed give other data, so that recordings and
decoders that were kept are not taken for those of today's participants."""
