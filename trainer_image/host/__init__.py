"""The machine that a training runs on: memory, disk, devices, and which failures mean that one of them gave out."""
