"""The networks: what each is made of, and what goes before it."""
