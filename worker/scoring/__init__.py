"""Scoring: scans in, one event for each image out; what may be committed follows from what is settled."""
