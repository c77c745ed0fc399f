"""What a run is configured by: the settings of the pod, and config.yaml of the model.

Strict and complete: every problem is found before a byte of the dataset is read.
"""
