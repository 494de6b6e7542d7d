"""Fitting networks: options, batches, augmentation, Lightning's loop, and what may come before and beside it."""
