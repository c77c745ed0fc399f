"""command.argv with paths in it: `{DATASET_DIR}` in an argument becomes what the program's environment has under it.

No shell reads the arguments. What is not the name of something that a program is given stays as it stands, with its
braces: `{"lr": 1}`, `{NF}` of awk, `${HOME}` of a shell that is the program.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer_image.errors import ConfigInvalid
from trainer_image.storage.blob_names import printable

NAMES = (
    "DATASET_DIR", "OUTPUT_DIR", "CHECKPOINT_DIR", "PROGRESS_FILE", "CONFIG_FILE", "LATEST_MODEL_DIR",
    "RUN_ID", "SEED", "DEVICE", "TIME_BUDGET_SECONDS", "GRACE_SECONDS",
    "NNODES", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "NPROC_PER_NODE",
)  # fmt: skip
_NAME = re.compile(r"(?<![${])\{([A-Z][A-Z0-9_]{0,63})\}(?!\})")
# Who writes one of these means a path that there is none of.
_MEANT = re.compile(r"[A-Z0-9_]*(?:_DIR|_FILE|_PATH|_FOLDER)|DATA|DATASET|OUTPUT|CHECKPOINTS?|OUT|MODEL")
_INTERPRETER = re.compile(r"python[\d.]*|(?:ba|da|z|k)?sh|torchrun|Rscript|node|perl|ruby|julia|php")
_DOLLAR = re.compile(r"\$(?:\{(\w+)\}|\((\w+)\)|(\w+))")


def check(argv: Sequence[str]) -> None:
    """Raises ConfigInvalid for a name in braces that looks like one of ours and is none, and for a script that is not
    there: its interpreter would say so after the download."""
    if _INTERPRETER.fullmatch(Path(argv[0]).name) and len(argv) > 1:
        script = argv[1]
        if not script.startswith("-") and not _NAME.search(script) and not Path(script).exists():
            raise ConfigInvalid(
                f"Invalid configuration: command.argv.1: there is no file {printable(script)} in this image, seen from"
                f" the working directory {Path.cwd()}"
            )
    for place, word in enumerate(argv):
        for name in _NAME.findall(word):
            if name not in NAMES and _MEANT.fullmatch(name):
                raise ConfigInvalid(
                    f"Invalid configuration: command.argv.{place}: {{{name}}} stands for nothing; known are "
                    + ", ".join(f"{{{known}}}" for known in NAMES)
                )


def remarks(argv: Sequence[str]) -> list[str]:
    """Sentences for arguments that were meant for a shell, where the program is none."""
    if any(re.fullmatch(r"-\w{0,5}c", word) for word in argv[1:3]):
        return []
    return [
        f"command.argv.{place} is {word} as it stands, since no shell reads it: {{{name}}} would be filled in"
        for place, word in enumerate(argv)
        if (found := _DOLLAR.search(word)) and (name := next(filter(None, found.groups()))) in NAMES
    ]


def filled(argv: Sequence[str], given: Mapping[str, str]) -> list[str]:
    """The arguments with the names that are given replaced, but for the program. One without a value is empty."""

    def value(found: re.Match[str]) -> str:
        return given.get(found[1], "") if found[1] in NAMES else found[0]

    return [*argv[:1], *(_NAME.sub(value, word) for word in argv[1:])]
