"""The second served model: which part of a slice lies inside the skull. Draws, fits, judges and exports it."""
