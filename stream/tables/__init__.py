"""Tables as text: delimited files, BIDS tables, label tables."""
