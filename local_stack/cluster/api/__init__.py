"""The HTTP side: paths, verbs, watches, logs, discovery, and the control calls by which tests cause faults."""
