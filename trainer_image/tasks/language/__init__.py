"""Task `language_model`: a byte-level GPT.

Documents become windows of bytes (`windows`); `generate` writes text with the trained network.
"""
