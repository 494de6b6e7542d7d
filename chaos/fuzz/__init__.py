"""Structure-aware fuzzing: one grammar for each kind of input, three dice to roll it, pure targets and real doors."""
