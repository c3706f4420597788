"""Configs: what they may say, what they say by default, and what their mistakes are told."""
