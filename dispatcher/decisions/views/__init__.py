"""Where a training stands, as people and metrics are told: they decide nothing."""
