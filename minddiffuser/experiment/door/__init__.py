"""The door of browser experiments: markers by HTTP and WebSocket, stamped with the page's own flip times."""
