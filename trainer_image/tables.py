"""Tables for plug-ins: what the page for trainer authors names. The readers themselves are in `data`."""

from trainer_image.data.table import Table, read_table

__all__ = ["Table", "read_table"]
