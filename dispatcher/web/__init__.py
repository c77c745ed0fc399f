"""What a running dispatcher serves over HTTP, for reading alone: probes, metrics, and the status page.

The page's rows are pure functions of what the cache, the queues and the portal had last.
"""
