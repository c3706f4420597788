"""The first hour: a config from what streams, and what was understood of it."""
