"""Clients of the peers that several rooms share."""
