"""Forecast stores: format, writing, reading, checking, NetCDF."""
