"""Tables for plug-ins, and rows that stay held out: what the page for their authors names. Both are made in `data`."""

from trainer_image.data.rows.division import Division, RowHashes, divide
from trainer_image.data.rows.hashes import of_bytes as hashes_of_bytes
from trainer_image.data.rows.hashes import of_table as hashes_of_table
from trainer_image.data.table import Table, read_table

__all__ = ["Division", "RowHashes", "Table", "divide", "hashes_of_bytes", "hashes_of_table", "read_table"]
