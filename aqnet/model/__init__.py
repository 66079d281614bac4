"""Forecasters: networks that know wind and terrain, and the statistical forecasts beside them."""
