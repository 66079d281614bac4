"""Stations of any network: their observations, baselines and scores."""
