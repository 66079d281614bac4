"""Looking at data and forecasts: figures that redraw at once, and controls for JupyterLab."""
