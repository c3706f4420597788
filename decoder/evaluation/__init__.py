"""How good decoded features are, when they arise, and whether for the right reason."""
