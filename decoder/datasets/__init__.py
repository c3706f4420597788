"""Readers for recorded data sets, each with splits that cannot leak."""
