"""Terminal viewers and subscribers."""
