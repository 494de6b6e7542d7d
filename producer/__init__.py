"""The doors: C-STORE, STOW-RS and a watched folder; one intake for all three; Success only when Kafka has it."""
