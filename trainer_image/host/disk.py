"""Whether a failure was one of a full disk: each library reports it in its own way, and only an operator can help."""

from __future__ import annotations

import errno
import re

from trainer_image.errors import LimitExceeded, causes

# The disk has no room, the user no quota, or the file system no files of that size.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# safetensors writes in Rust, and hands the errno on in its text only.
_IN_WORDS = re.compile(r"\(os error (\d+)\)")


def full(error: BaseException) -> LimitExceeded | None:
    """The failure as one of disk space, None where nothing says so."""
    for seen in causes(error):
        said = _IN_WORDS.search(str(seen))
        if (isinstance(seen, OSError) and seen.errno in FULL) or (said and int(said[1]) in FULL):
            file = getattr(seen, "filename", None)
            where = f" while {file} was written" if isinstance(file, str) else ""
            return LimitExceeded(
                f"The disk of the training is full{where}: a larger ephemeral-storage limit or volume is needed"
            )
    return None
