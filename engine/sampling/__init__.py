"""Samplers and gradients as pure functions."""
