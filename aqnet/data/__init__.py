"""From the files of a source, or a simulation, to batches of samples; with provenance."""
