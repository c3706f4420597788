"""What the commands carry out."""
