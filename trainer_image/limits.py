"""The operator's limits on untrusted data."""

from __future__ import annotations

from dataclasses import dataclass

from training_common.parsers import whole
from training_common.settings import setting

_number = whole(0, 10**15)


@dataclass(frozen=True)
class Limits:
    """0 switches a limit off."""

    dataset_bytes: int = setting("MAX_DATASET_BYTES", _number, "Limit on the dataset's size; 0: none", "214748364800")
    dataset_files: int = setting("MAX_DATASET_FILES", _number, "Limit on its files; 0: none", "5000000")
    image_pixels: int = setting("MAX_IMAGE_PIXELS", _number, "Limit on one image's pixels; 0: none", "64000000")
    table_columns: int = setting("MAX_TABLE_COLUMNS", _number, "Limit on a table's columns; 0: none", "10000")
    field_bytes: int = setting("MAX_FIELD_BYTES", _number, "Limit on one cell of a table; 0: none", "1048576")
    output_bytes: int = setting(
        "MAX_OUTPUT_BYTES",
        _number,
        "Limit on what a program (`task: command`) leaves as its model; 0: none",
        "107374182400",
    )
