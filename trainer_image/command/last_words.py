"""Why a program ended, from what it printed last: the exception and where in the program's own code, or its last lines.

Pure but for the file in which `@record` of torch.distributed leaves the first error of all processes (`ERROR_FILE`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import islice, takewhile
from pathlib import Path

from trainer_image import raised
from trainer_image.host import beneath
from trainer_image.raised import Raised
from trainer_image.storage import untrusted_json

# Read by torchrun, which copies there what its first failed process has recorded, and by `@record` itself.
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
ERROR_BYTES = 256 * 1024
MOST_LINES, LINE_CHARACTERS = 3, 190
# Where torchrun begins to tell in many lines that a process of it has failed: why stands before.
_TORCHRUN_TELLS = re.compile(r"torch/distributed/elastic/multiprocessing/api\.py.*failed \(exitcode")
# torchrun's, and those of mpirun --tag-output and horovodrun: "[1,3]<stderr>:".
RANK = re.compile(r"\[(?:(?:rank|default)(?=\d{1,6}\]:)|\d{1,6},(?=\d{1,6}\]<))(\d{1,6})\](?:<std(?:out|err)>)?:\s?")
# Traces of calls, and what a runtime or `make` adds: of no interest after what went wrong.
_TRACE = re.compile(
    r"\s+at \S|\s+\.{3} \d{1,9} more|\s*$|\s*[~^]+$|goroutine \d|\t|\s+\[\d{1,9}\] |Stacktrace:|note: run with"
    r"|exit status|Calls: |Execution halted|Node\.js v|\w{0,8}make(?:\[\d{1,9}\])?: |Exception ignored|main\.main\(\)"
    r"|Stack trace:|stack traceback:|Backtrace:|#\d{1,9}\s|\s+thrown in |frame #\d"
    r"|Exception raised from .{1,400}first\):|Aborted(?: \(core dumped\))?$|in expression starting at |\s+@ \S"
    r"|\s+\u2586$|\s{1,8}\d{1,9}\. [\u2502\u2514\u251c\s]|\s{1,8}\d{0,9} [|] "
)
_BEGINS = re.compile(
    r"Exception in thread |Caused by: |panic: |ERROR: |thread '.{0,100}' panicked|[A-Z]\w{0,60}Error: "
    r"|PHP Fatal error: |Error in [^:]{1,200}:\s*$|Unhandled exception|\S{1,200}:\d{1,9}: (?:fatal )?error: "
)
# How many lines before the last one of interest such a line is looked for.
_BEFORE = 8


def why(lines: Sequence[str], error_file: Path, echo: re.Pattern[str]) -> str:
    """One line; empty where nothing was said. lines: what was printed last; error_file: what was recorded, if anything

    echo: how a process says that it has only lost another one
    """
    found = _recorded(error_file)
    if found is None:
        end = next((number for number, line in enumerate(lines) if _TORCHRUN_TELLS.search(line)), len(lines))
        told, ranks = by_ranks(lines[:end])
        of_ranks = [each for rank in ranks if (each := raised.read(rank)) is not None]
        found = next((each for each in of_ranks if not echo.search(each.said)), None) or raised.read(told)
        if found is None:
            return " / ".join(last_lines(told or lines))
    return raised.sentence(found, raised.last_of_a_program)


def swallowed(lines: Sequence[str]) -> str:
    """What a program that ended well printed of an exception last, as the end of a sentence; empty where it did not."""
    found = raised.read(by_ranks(lines)[0])
    return "" if found is None else f"; the last that it printed is {raised.sentence(found, raised.last_of_a_program)}"


def _recorded(path: Path) -> Raised | None:
    """What torch.distributed's `@record` has written: any process of the program may have, whatever it likes."""
    try:
        with beneath.open_file(path.parent, path.name) as file:
            said = untrusted_json.loads(file.read(ERROR_BYTES).decode("utf-8", "replace"))["message"]
        lines = said["extraInfo"]["py_callstack"].splitlines()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return raised.read(lines)


def by_ranks(lines: Iterable[str]) -> tuple[list[str], list[list[str]]]:
    """(the lines without the ranks that torch puts before them, those of each rank: they come mixed)"""
    plain, ranks = [], dict[str, list[str]]()
    for line in lines:
        found = RANK.match(line)
        plain.append(line[found.end() :] if found else line)
        if found:
            ranks.setdefault(found[1], []).append(plain[-1])
    return plain, list(ranks.values())


def last_lines(lines: Sequence[str]) -> list[str]:
    """At most MOST_LINES that say why a program ended whose words are not Python's: without what its runtime adds."""
    end = len(lines)
    while end and _TRACE.match(lines[end - 1]):
        end -= 1
    begin = next((n for n in range(end - 1, max(-1, end - 1 - _BEFORE), -1) if _BEGINS.match(lines[n])), None)
    if begin is None:
        # What `make` says of a recipe that printed nothing is all there is.
        shown = [line for line in lines[: end or len(lines)] if line.strip() and not re.match(r"\s*[~^]+$", line)]
        return [_short(line) for line in shown[-MOST_LINES:]]
    told = takewhile(lambda line: not _TRACE.match(line), lines[begin:end])
    return [_short(line) for line in islice(told, MOST_LINES)]


def _short(line: str) -> str:
    return line if len(line) <= LINE_CHARACTERS else f"{line[: LINE_CHARACTERS - 1]}…"
