"""Recording of live streams, and replay of recordings as live streams."""
