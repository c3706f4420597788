"""Regression and classification of features."""
