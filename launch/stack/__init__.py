"""The embedded stack: real servers as child processes, each in its own folder and on free loopback ports."""
