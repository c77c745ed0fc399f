"""One run from settings to exit code: an attempt at training, its status at the portal, its termination message.

Start reading at lifecycle.py.
"""
