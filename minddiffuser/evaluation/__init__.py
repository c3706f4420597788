"""Figures of quality, beside chance, and the verdict on them."""
