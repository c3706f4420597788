"""Maps of where and when the brain carries features."""
