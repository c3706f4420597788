"""What a calibration's signal was like, and what is wrong with the one that comes now."""
