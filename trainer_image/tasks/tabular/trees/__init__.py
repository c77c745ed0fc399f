"""Decision trees: candidates that are made of them, and what they are at rest."""
