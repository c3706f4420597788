"""Pictures, their target features, samples and splits."""
