"""One engine that trains any forecaster on any number of processes, and its checkpoints."""
