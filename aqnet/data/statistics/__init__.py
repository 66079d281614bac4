"""Exact statistics of training hours, computed in one pass by many processes, kept in one file."""
