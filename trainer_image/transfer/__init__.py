"""What goes between containers and the work folder: dataset, checkpoints, metrics, the published model.

Everything fetched is verified, and of several pods only the holder of the lease publishes.
"""
