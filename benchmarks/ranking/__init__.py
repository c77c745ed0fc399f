"""Ours among plain rivals on tables, images and texts that nothing was chosen on."""
