"""Notebooks as runs: parameters, run folders, scripts, SLURM jobs, sweeps."""
