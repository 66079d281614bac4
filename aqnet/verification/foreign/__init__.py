"""Forecasts that other systems made, brought to a forecast store."""
