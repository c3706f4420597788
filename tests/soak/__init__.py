"""Hours of a lab's day in a row: sources that die, stall and skip, and an account of every sample and marker."""
