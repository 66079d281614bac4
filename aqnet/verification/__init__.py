"""Forecast stores, scores, tests of significance, physics checks and reports."""
