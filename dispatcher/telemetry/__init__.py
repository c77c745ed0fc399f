"""What a dispatcher lets others observe: log lines, Prometheus metrics, and Kubernetes Events on each Job.

Every room may use it; it decides nothing.
"""
