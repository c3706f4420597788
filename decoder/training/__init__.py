"""What fits the models."""
