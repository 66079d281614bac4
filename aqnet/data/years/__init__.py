"""Yearly stores of hourly fields: their format, writing, reading, checking."""
