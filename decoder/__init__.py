"""From windows of brain data to the features a reconstruction needs."""
