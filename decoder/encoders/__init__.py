"""Convolutional encoders of windows."""
