"""Sentences of exceptions that are not ours: what was raised and where in their code, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer_image import raised
from trainer_image.raised import last_in_package, last_of_a_program

PLACE = '  File "/opt/program/{}", line {}, in {}\n    code\n    ~~~~^^^\n'
LIBRARY = '  File "/opt/venv/lib/python3.11/site-packages/numpy/core.py", line 7, in asarray\n    code\n'
STANDARD = '  File "/usr/lib/python3.11/json/decoder.py", line 355, in raw_decode\n    code\n'
HEAD = "Traceback (most recent call last):\n"
MAIN, LOAD = PLACE.format("train.py", 9, "<module>"), PLACE.format("data.py", 3, "load")
CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
MEANWHILE = "\nDuring handling of the above exception, another exception occurred:\n\n"

PRINTED: dict[str, tuple[str, str | None]] = {
    "one": (f"epoch 3\n{HEAD}{MAIN}{LOAD}KeyError: 'price'\n", "KeyError: 'price' (data.py, line 3, in load)"),
    "of the module": (
        f"{HEAD}{MAIN}NameError: name 'x' is not defined",
        "NameError: name 'x' is not defined (train.py, line 9)",
    ),
    "in a library": (f"{HEAD}{MAIN}{LOAD}{LIBRARY}ValueError: bad", "ValueError: bad (data.py, line 3, in load)"),
    "in the interpreter's": (
        f"{HEAD}{MAIN}{STANDARD}json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
        "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0) (train.py, line 9)",
    ),
    "without a message": (f"{HEAD}{MAIN}AssertionError\n", "AssertionError (train.py, line 9)"),
    "caused": (
        f"{HEAD}{LOAD}KeyError: 'x'\n{CAUSED}{HEAD}{MAIN}RuntimeError: no batch\n",
        "RuntimeError: no batch (train.py, line 9), caused by KeyError: 'x' (data.py, line 3, in load)",
    ),
    "while another was handled": (
        f"{HEAD}{LOAD}KeyError: 'x'\n{MEANWHILE}{HEAD}{MAIN}TypeError: no\n",
        "TypeError: no (train.py, line 9), raised while handling KeyError: 'x' (data.py, line 3, in load)",
    ),
    "of a chain the first": (
        f"{HEAD}{LOAD}KeyError: 'x'\n{CAUSED}{HEAD}{MAIN}OSError: a\n{CAUSED}{HEAD}{MAIN}RuntimeError: b\n",
        "RuntimeError: b (train.py, line 9), caused by KeyError: 'x' (data.py, line 3, in load)",
    ),
    "of a pool's process": (
        f'multiprocessing.pool.RemoteTraceback: \n"""\n{HEAD}{LOAD}ValueError: x\n"""\n'
        f"{CAUSED}{HEAD}{MAIN}ValueError: x\n",
        "ValueError: x (data.py, line 3, in load)",
    ),
    "of a data loader's process": (
        f"{HEAD}{MAIN}{LIBRARY}KeyError: Caught KeyError in DataLoader worker process 0.\n"
        f"Original {HEAD}{LIBRARY}{LOAD}KeyError: 'label'\n",
        "KeyError: 'label' (data.py, line 3, in load)",
    ),
    "of a process that torch.multiprocessing has spawned": (
        f"{HEAD}{MAIN}{LIBRARY}torch.multiprocessing.spawn.ProcessRaisedException: \n"
        f"-- Process 1 terminated with the following error:\n{HEAD}{LIBRARY}{LOAD}KeyError: 'label'\n",
        "KeyError: 'label' (data.py, line 3, in load)",
    ),
    "with another traceback for its message": (
        f"{HEAD}{MAIN}RuntimeError: worker failed:\n{HEAD}{LOAD}KeyError: 'label'\n",
        "KeyError: 'label' (data.py, line 3, in load)",
    ),
    "of Pydantic": (
        f"{HEAD}{MAIN}pydantic_core._pydantic_core.ValidationError: 1 validation error for Config\nlr\n"
        "  Input should be a valid number [type=float_parsing]\n    For further information visit …\n",
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for Config lr Input should be a valid number"
        " [type=float_parsing] (train.py, line 9)",
    ),
    "with more lines than are looked back": (
        f"{HEAD}{MAIN}RuntimeError: Error(s) in loading state_dict for Net:\n"
        + "\tsize mismatch for w: (2, 2) and (3, 3).\n" * 60,
        "RuntimeError: Error(s) in loading state_dict for Net: size mismatch for w: (2, 2) and (3, 3)."
        " (train.py, line 9)",
    ),
    "of a child": (
        f"{HEAD}{LOAD}KeyError: 'x'\n{HEAD}{MAIN}{STANDARD}subprocess.CalledProcessError: Command 'x' returned 1.\n",
        "KeyError: 'x' (data.py, line 3, in load)",
    ),
    "of a child that said nothing": (
        f"{HEAD}{MAIN}{STANDARD}subprocess.CalledProcessError: Command 'x' returned non-zero exit status 1.\n",
        "subprocess.CalledProcessError: Command 'x' returned non-zero exit status 1. (train.py, line 9)",
    ),
    "syntax": (
        '  File "/opt/program/train.py", line 3\n    def f(:\n          ^\nSyntaxError: invalid syntax\n',
        "SyntaxError: invalid syntax (train.py, line 3)",
    ),
    "syntax of an imported one": (
        f'{HEAD}{MAIN}  File "/opt/program/data.py", line 5\n    x = (\n        ^\n'
        "SyntaxError: '(' was never closed\n",
        "SyntaxError: '(' was never closed (data.py, line 5)",
    ),
    "a missing package": (
        f"{HEAD}{MAIN}ModuleNotFoundError: No module named 'lightning.fabric'",
        "ModuleNotFoundError: No module named 'lightning.fabric' (train.py, line 9): no package of the image has the"
        " module lightning",
    ),
    "a missing package of another name": (
        f"{HEAD}{MAIN}ModuleNotFoundError: No module named 'sklearn'",
        "ModuleNotFoundError: No module named 'sklearn' (train.py, line 9): the image lacks the package scikit-learn",
    ),
    "what it announces": (
        f"{HEAD}{MAIN}RuntimeError: Error(s) in loading state_dict for Net:\n\tMissing key(s): 'w'\n",
        "RuntimeError: Error(s) in loading state_dict for Net: Missing key(s): 'w' (train.py, line 9)",
    ),
    "a group": (
        "  + Exception Group Traceback (most recent call last):\n"
        '  |   File "/opt/program/train.py", line 9, in run\n  |     code\n'
        "  | ExceptionGroup: two (3 sub-exceptions)\n"
        "  +-+---------------- 1 ----------------\n"
        "    | Traceback (most recent call last):\n"
        '    |   File "/opt/program/data.py", line 3, in load\n    |     code\n    |     ^^^^\n'
        "    | ValueError: one\n"
        "    +---------------- 2 ----------------\n    | KeyError: 'x'\n"
        "    +---------------- 3 ----------------\n    | ExceptionGroup: in (1 sub-exception)\n"
        "    +-+---------------- 1 ----------------\n      | TypeError: z\n"
        "      +------------------------------------\n",
        "ExceptionGroup: two (3 sub-exceptions) (train.py, line 9, in run): ValueError: one (data.py, line 3, in load);"
        " KeyError: 'x'; TypeError: z",
    ),
    "drawn by rich": (
        "╭───── Traceback (most recent call last) ─────╮\n│ /opt/program/train.py:9 in main             │\n"
        "│ ❱  9 │   load()                             │\n╰─────────────────────────────────────────────╯\n"
        "KeyError: 'p'\n",
        "KeyError: 'p' (train.py, line 9, in main)",
    ),
    "of the interpreter": (
        "Fatal Python error: Segmentation fault\n\nCurrent thread 0x0000 (most recent call first):\n"
        '  File "/usr/lib/python3.11/ctypes/__init__.py", line 519 in string_at\n'
        '  File "/opt/program/train.py", line 3 in boom\n  File "/opt/program/train.py", line 4 in <module>\n',
        "Fatal Python error: Segmentation fault (train.py, line 3, in boom)",
    ),
    "before a destructor's": (
        f"{HEAD}{MAIN}ValueError: x\nException ignored in: <function A.__del__>\n{HEAD}{LOAD}TypeError: del\n",
        "ValueError: x (train.py, line 9)",
    ),
    "of an installed program": (
        f'{HEAD}  File "<frozen runpy>", line 198, in _run\n'
        '  File "/opt/venv/lib/python3.11/site-packages/ours/train.py", line 5, in main\n    code\n'
        f"{LIBRARY}ValueError: bad",
        "ValueError: bad (train.py, line 5, in main)",
    ),
    "with another process's line within": (
        f"{HEAD}{MAIN}epoch 4 of 5\nKeyError: 'x'",
        "KeyError: 'x' (train.py, line 9)",
    ),
    "deeper than what is kept": (
        f"    code\n{LOAD * 60}RecursionError: maximum recursion depth exceeded\n",
        "RecursionError: maximum recursion depth exceeded (data.py, line 3, in load)",
    ),
    "a frame without an exception": (f"{LOAD}{LOAD}and so on\n", None),
    "long ago": (f"{HEAD}{MAIN}KeyError: 'skipped'\n" + "epoch\n" * 50, None),
    "none": ("epoch 1\nno rows", None),
    "half of one": (f"{HEAD}{MAIN}", None),
}


@pytest.mark.parametrize("case", PRINTED)
def test_what_python_printed_becomes_the_exception_and_where_in_their_code(case: str) -> None:
    text, told = PRINTED[case]
    found = raised.read(text.splitlines())
    assert (found and raised.sentence(found, last_of_a_program)) == told
    assert "^" not in str(told)


@given(
    st.lists(st.sampled_from([*"".join(text for text, _ in PRINTED.values()).splitlines(), "  | ", "+-+---- 1 ----"]))
)
def test_no_lines_in_any_order_break_the_reading(lines: list[str]) -> None:
    found = raised.read(lines)
    assert found is None or "\n" not in raised.sentence(found, last_of_a_program)


@pytest.mark.parametrize("line", ["| " * 1000, "+-" * 1000, '  File "' * 200, "╭" + "Traceback" * 200, " " * 2000])
def test_a_line_that_is_made_to_be_slow_is_not(line: str) -> None:
    began = time.process_time()
    raised.read([HEAD.strip(), *[line] * 200])
    raised.read([HEAD.strip()] * 1000)
    assert time.process_time() - began < 1.0


def module(source: str) -> Callable[[], None]:
    """`run` of a module of the package `theirs`."""
    made = ModuleType("theirs.task")
    exec(compile(source, "/site/theirs/task.py", "exec"), made.__dict__)
    return made.__dict__["run"]  # type: ignore[no-any-return]


LOADER = "Caught KeyError in DataLoader worker process 0.\nOriginal " + HEAD + PLACE.format("theirs/data.py", 3, "load")
AT_HAND = {
    "def run(): {}['price']": "KeyError: 'price' (task.py, line 1, in run)",
    "import json\ndef run(): json.loads('')": (
        "JSONDecodeError: Expecting value: line 1 column 1 (char 0) (task.py, line 2, in run)"
    ),
    "def run():\n  try: {}['x']\n  except KeyError as e: raise RuntimeError('no') from e": (
        "RuntimeError: no (task.py, line 3, in run), caused by KeyError: 'x' (task.py, line 2, in run)"
    ),
    "def run():\n  try: {}['x']\n  except KeyError: raise RuntimeError('no') from None": (
        "RuntimeError: no (task.py, line 3, in run)"
    ),
    "def run(): raise ExceptionGroup('two', [ValueError('a'), KeyError('b')])": (
        "ExceptionGroup: two (2 sub-exceptions) (task.py, line 1, in run): ValueError: a; KeyError: 'b'"
    ),
    f"class Again(KeyError): __str__ = lambda self: self.args[0]\ndef run(): raise Again({LOADER + 'KeyError: 1'!r})": (
        "KeyError: 1 (data.py, line 3, in load)"
    ),
    "def run(): compile('def f(:', 'x.py', 'exec')": ("SyntaxError: invalid syntax (x.py, line 1)"),
    "class Bad(Exception): __str__ = lambda self: {}[1]\ndef run(): raise Bad": (
        "Bad: <exception str() failed> (task.py, line 2, in run)"
    ),
    "def run(): import nowhere_x": (
        "ModuleNotFoundError: No module named 'nowhere_x' (task.py, line 1, in run): no package of the image has the"
        " module nowhere_x"
    ),
}


@pytest.mark.parametrize("source", AT_HAND)
def test_an_exception_at_hand_is_told_as_a_printed_one_is(source: str) -> None:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 (all kinds)
        module(source)()
    assert raised.sentence(raised.of(caught.value), last_in_package("theirs")) == AT_HAND[source]


def test_a_chain_that_bites_its_tail_comes_to_an_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert raised.sentence(raised.of(first), last_in_package("theirs")).startswith("ValueError: a")
