"""From recordings to a trained bundle."""
