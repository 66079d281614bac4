"""Scores, tests of significance and the report."""
