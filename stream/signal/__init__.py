"""What happens to samples, one stream at a time: clock, bad samples, filters, ring; no LSL here."""
