"""Measurements at stations: packed, read, analysed onto a grid, made into samples."""
