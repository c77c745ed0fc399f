"""A portal for trainings: what one may tell and ask the real one, with a token that is good for its run alone."""
