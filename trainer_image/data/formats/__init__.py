"""Readers of tables, one module a format: files → batches of rows with every cell as text or null."""
