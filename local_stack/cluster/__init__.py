"""A stand-in cluster: the part of the Kubernetes API that an orchestrator uses, with its semantics, in one process.

api answers requests, registry holds the objects and their rules, controllers and node act on them; client starts it."""
