"""The second stage: structure."""
