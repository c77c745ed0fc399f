"""Semantic segmentation of images, as a task plug-in of the trainer."""
