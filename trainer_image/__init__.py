"""The trainer: one run from a dataset's container to a published model, in a pod or on a laptop.

cli ─▶ run ─▶ transfer   configuration, dataset and checkpoints in; the model out, by one conditional write
        │      config, storage
        └───▶ engine     trains a task of tasks/, from tables and texts of data/, and writes a report/
              command    or runs a program of the user's instead
Both backends know the run by contract.py only; host/ is the machine below.
"""
