"""A package, so that the rig ends with its tests and does not run on beside all others."""
