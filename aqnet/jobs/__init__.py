"""Running notebooks: typed parameters, run folders, execution."""
