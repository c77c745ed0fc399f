"""What stands in for Azure, the portal and Kubernetes on one machine, and the demo and the storm that use it.

Real processes that listen on loopback only; the dispatcher talks to them through its ordinary clients."""
