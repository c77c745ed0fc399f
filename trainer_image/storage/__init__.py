"""Containers of blobs, in Azure or in a folder, behind one Protocol (container.py); no other room imports the SDK."""
