"""What can go wrong, one module a family. Each tells its rows of the matrix: ``faults(hold) -> (Fault, …)``."""
