"""The command line: one file for each command that needs more than a few lines, `support` for what they share.

Commands build their clients through `factories` and hold no state.
"""
