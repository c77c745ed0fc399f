"""Pure functions that decide: what becomes of a message, of a Job and of a pod, and why. No clock, no adapter."""
