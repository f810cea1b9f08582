"""Graph: what a network computes on an example, operation by operation, and which of its units are coupled."""
