"""What the dispatcher relies on in Kubernetes: one suite, run on the stand-in and on a real cluster."""
