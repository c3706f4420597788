"""Brain data in, pictures out: LSL ingest, windows, recordings, replay and MQTT."""
