"""How the desk models were made: emoji art, composer and training."""
