"""From data sets to studies: one seam, a loader for each layout, checks before training, splits by patient, a cache."""
