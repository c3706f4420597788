"""Sessions kept on disk."""
