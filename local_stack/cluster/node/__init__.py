"""What a kubelet does: pods become local process groups, with their environment, logs and statuses."""
