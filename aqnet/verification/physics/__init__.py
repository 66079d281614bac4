"""Whether forecasts obey physics: impossible values, mass budgets, counterfactual probes."""
