"""One engine, or several alike, for many rooms: replicas on Ray Serve behind a door of our own."""

import minddiffuser.pool.ray_session  # noqa: F401  before Ray is imported anywhere
