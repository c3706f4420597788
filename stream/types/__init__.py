"""What a recording and a stream are made of: events, channels, units, montages, windows."""
