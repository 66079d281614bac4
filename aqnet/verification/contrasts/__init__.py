"""Arms of an experiment, compared in pairs: one fixed set, gains, intervals, cost, verdict."""
