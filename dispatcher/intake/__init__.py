"""Takes messages from the queue to their end: receive, decode, launch, then delete, requeue or dead-letter.

Pauses behind a circuit breaker while the queue, the portal or the cluster is out of reach.
"""
