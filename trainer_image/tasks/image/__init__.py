"""Task `image_classification`: one class for each image.

`sources` finds the images in folders and archives, `files` reads them and their labels.
"""
