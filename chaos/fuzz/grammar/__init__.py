"""What each kind of input looks like, and how it may be wrong: choices in, bytes out. Pure."""
