"""The experiment: pictures on a screen with a marker each, its timing, its rehearsal and a guided calibration."""
