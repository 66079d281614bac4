"""Sweeps: definition, points, folder; on this machine and as arrays of SLURM; results."""
