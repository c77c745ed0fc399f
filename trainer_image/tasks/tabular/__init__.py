"""Task `tabular`: classification and regression on tables.

What each column means is decided in `fit`, what is predicted in `target`; `task` puts them together.
"""
