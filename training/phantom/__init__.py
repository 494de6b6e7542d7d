"""Head CT phantom: anatomy from tissue maps, skull and base, bleeds, mimics, and the scanner that sees them."""
