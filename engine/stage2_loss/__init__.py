"""The terms of stage 2's loss and their weights; below the settings, which read the weights from here."""
