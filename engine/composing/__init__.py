"""Composed pictures, drawn from packs of glyphs."""
