"""From decoded features to pictures, in two stages."""
