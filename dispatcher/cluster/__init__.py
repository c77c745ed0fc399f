"""The Kubernetes API: one adapter, its errors, our labels and annotations, and how to read its objects."""
