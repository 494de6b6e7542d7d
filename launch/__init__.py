"""Starts things: the only room that imports all the others."""
