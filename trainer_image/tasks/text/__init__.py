"""Task `text_classification`: one class for each text.

Texts become hashed n-grams (`features`), on which a linear model or a small network works.
"""
