"""Faults on purpose: the real stack is struck, scanners go on sending, and a ledger tells what was lost."""
