"""Files of a dataset, written by strangers → tables, texts and archive members, within the operator's limits.

What is too large for memory goes to files in the work folder (spill).
"""
