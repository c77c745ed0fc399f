"""Signatures for the containers of single trainings: the adapter of azure-storage-blob, and its errors."""
