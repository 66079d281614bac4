"""A physically simulated twin of the CAQRA reanalysis: synthetic weather and pollution."""
