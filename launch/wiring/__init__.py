"""One module a room: settings and hooks → its services."""
