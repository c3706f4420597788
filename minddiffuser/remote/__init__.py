"""An engine elsewhere: what a room and a pool say to each other, and the room's side of it."""
