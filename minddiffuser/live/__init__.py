"""A session: ingest, decoder, engine and publisher, running."""
