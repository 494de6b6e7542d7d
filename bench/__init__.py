"""Benches: figures beside an anchor of the same run."""
