"""Why a program ended, by its last lines: Python's, torchrun's, and those of other languages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trainer_image.command.programs import ending
from trainer_image.command import nodes
from trainer_image.command.last_words import why

NOWHERE = Path("nowhere") / "error.json"
HEAD = "Traceback (most recent call last):"
FRAME = '  File "/opt/program/train.py", line 9, in main'

LAST: dict[str, tuple[str, str]] = {
    "lines": ("a\nb\n\nc\nd", "b / c / d"),
    "make": (
        f"{HEAD}\n{FRAME}\nKeyError: 'x'\nmake: *** [Makefile:3: train] Error 1\nmake: Leaving directory '/x'",
        "KeyError: 'x' (train.py, line 9, in main)",
    ),
    "make of a shell": ("sh: 1: trian: not found\nmake: *** [Makefile:3: all] Error 127", "sh: 1: trian: not found"),
    "make alone": (
        "make: *** No targets specified and no makefile found.  Stop.",
        "make: *** No targets specified and no makefile found.  Stop.",
    ),
    "java": (
        'Exception in thread "main" java.lang.IllegalStateException: no rows\n\tat a.B.c(B.java:3)\n'
        "Caused by: java.io.IOException: gone\n\tat a.D.e(D.java:9)\n\t... 3 more",
        "Caused by: java.io.IOException: gone",
    ),
    "node": (
        "loading\nTypeError: x is not a function\n    at main (/x/train.js:3:9)\n    at node:internal:1\n\nNode.js v20",
        "TypeError: x is not a function",
    ),
    "go": (
        "panic: no rows\n\ngoroutine 1 [running]:\nmain.main()\n\t/x/main.go:4 +0x1d\nexit status 2",
        "panic: no rows",
    ),
    "rust": (
        "thread 'main' panicked at src/main.rs:4:5:\nno rows\nnote: run with `RUST_BACKTRACE=1` environment variable",
        "thread 'main' panicked at src/main.rs:4:5: / no rows",
    ),
    "R": (
        "Error in f(x) : object 'y' not found\nCalls: main -> f\nExecution halted",
        "Error in f(x) : object 'y' not found",
    ),
    "C++": (
        "terminate called after throwing an instance of 'std::runtime_error'\n  what():  no rows",
        "terminate called after throwing an instance of 'std::runtime_error' /   what():  no rows",
    ),
    "C++ with frames": (
        "terminate called after throwing an instance of 'c10::Error'\n  what():  no file\n"
        "Exception raised from read at ../x.cpp:3 (most recent call first):\nframe #0: c10::Error() + 0x6c\n"
        "frame #1: <unknown function>\nAborted (core dumped)",
        "terminate called after throwing an instance of 'c10::Error' /   what():  no file",
    ),
    "C": (
        "t.c: In function 'main':\nt.c:3:5: error: 'x' undeclared\n    3 |     x = 1;\n      |     ^\n"
        "t.c:3:5: note: each undeclared identifier\nmake: *** [Makefile:2: t] Error 1",
        "t.c:3:5: error: 'x' undeclared",
    ),
    "rlang": (
        "Error in `f()`:\n! no column price\nBacktrace:\n    \u2586\n 1. \u2514\u2500global f()\nExecution halted",
        "Error in `f()`: / ! no column price",
    ),
    "Julia": (
        "ERROR: LoadError: UndefVarError: `x` not defined\nStacktrace:\n [1] f()\n   @ Main /x/t.jl:3\n"
        "in expression starting at /x/t.jl:5",
        "ERROR: LoadError: UndefVarError: `x` not defined",
    ),
    "Lua": (
        "lua: t.lua:1: attempt to index a nil value\nstack traceback:\n\tt.lua:1: in main chunk",
        "lua: t.lua:1: attempt to index a nil value",
    ),
    "PHP": (
        "PHP Fatal error:  Uncaught Exception: no rows in /x/t.php:3\nStack trace:\n#0 /x/t.php(5): f()\n#1 {main}\n"
        "  thrown in /x/t.php on line 3",
        "PHP Fatal error:  Uncaught Exception: no rows in /x/t.php:3",
    ),
    "java that says something at its end": (
        "Caused by: java.io.IOException: gone\n\tat q.r(S.java:1)\n\t... 12 more\nINFO: Shutdown hook called",
        "Caused by: java.io.IOException: gone",
    ),
    "ranks": (
        f"[rank1]: {HEAD}\n[rank0]: {HEAD}\n[rank1]: {FRAME}\n[rank0]: {FRAME}\n[rank1]: KeyError: 'label'\n"
        "[rank0]: torch.distributed.DistBackendError: Connection closed by peer [10.0.0.8]:41022\n"
        "E1129 03:06:47 83 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1) local_rank: 0\n"
        f"{HEAD}\n{FRAME}\ntorch.distributed.elastic.multiprocessing.errors.ChildFailedError:\n" + "=" * 60,
        "KeyError: 'label' (train.py, line 9, in main)",
    ),
    "nothing": ("", ""),
}


@pytest.mark.parametrize("case", LAST)
def test_why_is_told_without_what_a_runtime_adds(case: str) -> None:
    printed, told = LAST[case]
    assert why(printed.splitlines(), NOWHERE, nodes.LOST) == told


def test_what_torchrun_has_recorded_of_its_first_failed_process_counts(tmp_path: Path) -> None:
    """Its output may have gone to files (--redirects)."""
    stack = f"{HEAD}\n{FRAME}\nKeyError: 'x'\n"
    recorded = {"message": {"message": "KeyError: 'x'", "extraInfo": {"py_callstack": stack, "timestamp": "1"}}}
    error = tmp_path / "error.json"
    error.write_text(json.dumps(recorded))
    assert why(["ChildFailedError"], error, nodes.LOST) == "KeyError: 'x' (train.py, line 9, in main)"
    for odd in ("", "[]", '{"message": "x"}', '{"message": {"extraInfo": {"py_callstack": 3}}}', "[" * 5000):
        error.write_text(odd)
        assert why(["last"], error, nodes.LOST) == "last"
    error.unlink()
    error.symlink_to("/etc/passwd")
    assert why(["last"], error, nodes.LOST) == "last"


def test_the_sentence_of_a_program_s_exception_has_no_carets_and_no_frames(tmp_path: Path) -> None:
    odd = "import sys; sys.stdout.buffer.write(b'\\xff\\xfe caf\\xe9\\n')\n"
    code = f"{odd}def load(): return {{}}['pri' + chr(255)]\nload()"
    said = ending(tmp_path, code).sentence
    assert said.endswith("ended with exit code 1: KeyError: 'priÿ' (<string>, line 2, in load)")
    stack = f'{HEAD}\n  File "t.py", line 3, in f\nValueError: of a rank\n'
    code = (
        f"import json, os\nsaid = {{'message': {{'extraInfo': {{'py_callstack': {stack!r}}}}}}}\n"
        "json.dump(said, open(os.environ['TORCHELASTIC_ERROR_FILE'], 'w'))\n"
    )
    assert ending(tmp_path, code + "raise SystemExit(1)").sentence.endswith(
        ": ValueError: of a rank (t.py, line 3, in f)"
    )
