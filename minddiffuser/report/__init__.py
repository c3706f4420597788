"""Tables and pages of figures for people."""
