"""From pictures to responses: an encoding model, its noise, and how likely a window is given a picture."""
