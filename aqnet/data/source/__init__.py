"""From the files of a source to hours of a yearly store: found, read, converted, regridded."""
