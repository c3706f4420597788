"""From samples and events to windows, live and offline."""
