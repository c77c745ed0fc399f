"""What a program is told, what it cannot see, how its ends are read, how it is stopped."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from local_stack.processes import wait_until
from tests.trainer_image.command.programs import LEAVE, PYTHON, ending, inputs_for
from tests.world.processes import alive
from tests.world.repository import ROOT
from tests.world.training_data import FolderStore
from trainer_image import command, errors
from trainer_image.command import ends
from trainer_image.command import process as processes
from trainer_image.command.process import Program, environment
from trainer_image.config.model_config import parse_config
from trainer_image.contract import Progress
from trainer_image.host import memory


def test_a_program_is_told_where_everything_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_THE_IMAGE", "kept")
    said: list[Progress] = []
    code = LEAVE + "import json; json.dump(dict(os.environ), open(os.environ['OUTPUT_DIR'] + '/environment', 'w'))"
    inputs = inputs_for(tmp_path, PYTHON, "-c", code, said=said, initial=tmp_path, config={"train": {"seed": 7}})
    inputs.output.mkdir(parents=True)
    assert command.train(inputs).task == "command"
    told = json.loads((inputs.output / "environment").read_text())
    assert told["FROM_THE_IMAGE"] == "kept"
    assert (told["SEED"], told["DEVICE"], told["RUN_ID"]) == ("7", "cpu", inputs.run_id)
    assert (told["TIME_BUDGET_SECONDS"], told["GRACE_SECONDS"]) == ("1800", "15")
    assert (told["DATASET_DIR"], told["OUTPUT_DIR"]) == (str(inputs.data), str(inputs.output))
    assert told["LATEST_MODEL_DIR"] == str(tmp_path)
    assert Path(told["CHECKPOINT_DIR"]).is_dir()
    assert parse_config(Path(told["CONFIG_FILE"]).read_bytes()) == inputs.config
    assert said[0].message.startswith("Running ")


SECRETS = {
    "API_KEY": "key-of-the-portal",
    "AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=a2V5LWtleQ==;",
    "AZURE_CLIENT_SECRET": "s3cret-of-the-pod",
    "AZURE_FEDERATED_TOKEN_FILE": "/var/run/secrets/token",
    "IDENTITY_HEADER": "identity-header",
    "MY_OWN_COPY": "see key-of-the-portal",
    "ANOTHER_COPY": "a2V5LWtleQ==",
}


def test_a_program_gets_no_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    inputs = inputs_for(tmp_path, "sh", "-c", 'env > "$OUTPUT_DIR/environment"')
    inputs.output.mkdir(parents=True)
    command.train(inputs)
    told = (inputs.output / "environment").read_text()
    assert "OUTPUT_DIR=" in told
    for name, value in SECRETS.items():
        assert name not in told
        assert value not in told


def test_no_shell_reads_the_arguments(tmp_path: Path) -> None:
    inputs = inputs_for(tmp_path, PYTHON, "-c", LEAVE + "import sys; print(sys.argv[1])", "$HOME; exit 3 `id` > x")
    inputs.output.mkdir(parents=True)
    assert command.train(inputs).task == "command"


@pytest.mark.parametrize(
    ("code", "exit_code", "word"),
    [
        ("print('loading'); raise ValueError('price')", 79, "ended with exit code 1: "),
        ("import sys; sys.exit(3)", 79, "ended with exit code 3; it printed nothing"),
        ("import sys; print('no column y'); sys.exit(65)", 65, "exit code 65 (DatasetInvalid): no column y"),
        ("import sys; sys.exit(66)", 66, "(DatasetMissing)"),
        ("import sys; sys.exit(78)", 78, "(ConfigInvalid)"),
        ("import sys; sys.exit(80)", 80, "(TrainingDiverged)"),
        ("import sys; sys.exit(81)", 81, "(GpuOutOfMemory)"),
        ("import sys; sys.exit(82)", 82, "(LimitExceeded)"),
        ("import sys; sys.exit(77)", 79, "exit code 77"),
        ("import sys; sys.exit(83)", 79, "exit code 83"),
        ("import sys; sys.exit(127)", 79, "exit code 127"),
        ("import sys; sys.exit(128)", 205, "exit code 128"),
        ("import sys; sys.exit(143)", 205, "exit code 143"),
        ("import sys; sys.exit(201)", 201, "(StorageUnavailable)"),
        ("import sys; sys.exit(203)", 203, "(GpuFault)"),
        ("import sys; sys.exit(204)", 205, "exit code 204"),
        ("import os; os.abort()", 205, "killed by signal 6 (Aborted)"),
        ("import os; os.kill(os.getpid(), 9)", 205, "killed by signal 9"),
        ("raise RuntimeError('DefaultCPUAllocator: can\\'t allocate memory')", 137, "Out of memory"),
        ("raise SystemExit(0)", 79, "left nothing in OUTPUT_DIR"),
        (
            "import traceback\ntry: {}[1]\nexcept KeyError: traceback.print_exc()",
            79,
            "; the last that it printed is KeyError: 1 (<string>, line 2)",
        ),
    ],
)
def test_how_a_program_ends_decides_who_acts_and_whether_it_is_tried_again(
    tmp_path: Path, code: str, exit_code: int, word: str
) -> None:
    error = ending(tmp_path, code)
    assert error.exit_code == exit_code
    assert word in error.sentence
    assert error.retryable is (exit_code > 127)


def test_a_program_that_the_kernel_killed_for_memory_ran_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter([3, 4])
    monkeypatch.setattr(memory, "kills", lambda *where: next(counts))
    error = ending(tmp_path, "import os; os.kill(os.getpid(), 9)")
    assert (error.exit_code, error.code) == (137, "OutOfMemory")


def test_the_last_lines_are_in_the_sentence_without_credentials_and_escapes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    code = r"""
import sys
sys.stdout.write("10%\r20%\r")
print("\x1b[31mred\x1b[0m\x00 bell\x07")
print("AccountKey=c2VjcmV0LXNlY3JldA==;")
print("x" * 10_000)
sys.stdout.buffer.write(b"\xff last words")
sys.exit(1)
"""
    sentence = ending(tmp_path, code).sentence
    assert sentence.endswith("\ufffd last words")
    assert "c2VjcmV0" not in sentence
    assert len(sentence) < 800
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("program: ")]
    assert "program: red  bell" in lines
    assert max(map(len, lines)) < 2100
    assert "program: 20%" not in [r.getMessage() for r in caplog.records if r.levelname == "INFO"]


def test_a_program_that_cannot_be_executed_is_told(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_bytes(b"\x00\x01\x02")
    script.chmod(0o755)
    inputs = inputs_for(tmp_path, str(script))
    inputs.output.mkdir(parents=True)
    with pytest.raises(errors.UserCodeFailed, match=r"exit code 126: .*cannot be started: Exec format error"):
        command.train(inputs)


def test_what_the_program_left_running_is_ended_with_it(tmp_path: Path) -> None:
    code = LEAVE + (
        "import subprocess, sys; child = subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL);"
        "print('child', child.pid); open(os.environ['OUTPUT_DIR'] + '/pid', 'w').write(str(child.pid))"
    )
    inputs = inputs_for(tmp_path, PYTHON, "-c", code)
    inputs.output.mkdir(parents=True)
    command.train(inputs)
    pid = int((inputs.output / "pid").read_text())
    wait_until(lambda: not alive(pid))


def test_a_program_ends_with_a_trainer_that_is_killed() -> None:
    code = (
        "from trainer_image.command.process import Program, environment\n"
        "program = Program(['sh', '-c', 'echo running; exec sleep 600'], environment({}))\n"
        "while program.lines() != ['running']:\n    program.wait(0.02)\n"
        "print(program._process.pid, flush=True)\nprogram.wait(600)\n"
    )
    with subprocess.Popen([PYTHON, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        program = int(trainer.stdout.readline())
        trainer.kill()
    try:
        wait_until(lambda: not alive(program))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(program, signal.SIGKILL)


@pytest.mark.parametrize(
    ("ends", "said"),
    [("sys.exit(0)", "the program ended, its checkpoint is stored"), ("None", "was killed; its last stored")],
    ids=["in time", "not at all"],
)
def test_on_sigterm_the_program_saves_and_the_training_is_to_be_tried_again(
    tmp_path: Path, ends: str, said: str
) -> None:
    stop = threading.Event()
    store = FolderStore(tmp_path / "store")
    code = f"""
import os, signal, sys, time
def handle(number, frame):
    with open(os.environ["CHECKPOINT_DIR"] + "/state", "w") as file: file.write("saved")
    {ends}
signal.signal(signal.SIGTERM, handle)
open(os.environ["PROGRESS_FILE"], "a").write("ready\\n")
while True: time.sleep(0.02)
"""
    inputs = inputs_for(tmp_path, PYTHON, "-c", code, stop=stop, store=store)
    inputs.output.mkdir(parents=True)
    object.__setattr__(inputs, "grace_seconds", 30.0 if "exit" in ends else 0.4)
    object.__setattr__(inputs, "progress", lambda progress: progress.message == "ready" and stop.set())
    with pytest.raises(errors.Terminated, match=said) as told:
        command.train(inputs)
    assert told.value.exit_code == 143
    stored = [(path / "files" / "state").read_text() for path in store.kept]
    assert stored == (["saved"] if "exit" in ends else [])


OVERDUE: dict[str, tuple[str, str | None]] = {
    "publishes what it has": ("sys.exit(0)", None),
    "saves and gives up": ("sys.exit(143)", "ended with exit code 143 instead of 0, so there is no model"),
    "hears nothing": ("None", "had to be killed, so there is no model"),
}


@pytest.mark.parametrize("case", OVERDUE)
def test_a_program_that_outlives_its_time_budget_is_told_to_end(tmp_path: Path, case: str) -> None:
    ends, told = OVERDUE[case]
    code = f"""
import os, signal, sys, time
def handle(number, frame):
    with open(os.environ["OUTPUT_DIR"] + "/weights", "w") as file: file.write("of this moment")
    {ends}
signal.signal(signal.SIGTERM, handle)
while True: time.sleep(0.02)
"""
    inputs = inputs_for(tmp_path, PYTHON, "-c", code, config={"train": {"time_budget": "1s"}})
    object.__setattr__(inputs, "grace_seconds", 2.0 if "exit" in ends else 0.4)
    inputs.output.mkdir(parents=True)
    if told is None:
        assert command.train(inputs).task == "command"
        assert (inputs.output / "weights").read_text() == "of this moment"
        (note,) = json.loads((inputs.output / "report.json").read_text())["training"]["notes"]
        assert note.startswith("train.time_budget (1s) ended the program")
        return
    with pytest.raises(errors.UserCodeFailed) as failed:
        command.train(inputs)
    assert f"ran beyond train.time_budget (1s) and {told}" in failed.value.sentence
    assert not failed.value.retryable


def test_a_program_that_ends_in_its_grace_period_is_not_disturbed(tmp_path: Path) -> None:
    code = "import os, time; time.sleep(float(os.environ['TIME_BUDGET_SECONDS']) + 0.3); " + LEAVE
    inputs = inputs_for(tmp_path, PYTHON, "-c", code, config={"train": {"time_budget": "1s"}})
    inputs.output.mkdir(parents=True)
    command.train(inputs)
    assert json.loads((inputs.output / "report.json").read_text())["training"]["notes"] == []


def test_the_default_budget_is_told_and_ends_nothing(tmp_path: Path) -> None:
    assert ends.budgeted(inputs_for(tmp_path, PYTHON, config={"train": {"time_budget": "30m"}}))
    assert not ends.budgeted(inputs_for(tmp_path, PYTHON))


def test_a_stop_is_heard_after_the_time_budget_too(tmp_path: Path) -> None:
    stop = threading.Event()
    code = """
import os, signal, sys, time
def handle(number, frame):
    open(os.environ["PROGRESS_FILE"], "a").write("told\\n")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
signal.signal(signal.SIGTERM, handle)
while True: time.sleep(0.02)
"""
    inputs = inputs_for(tmp_path, PYTHON, "-c", code, stop=stop, config={"train": {"time_budget": "1s"}})
    inputs.output.mkdir(parents=True)
    object.__setattr__(inputs, "grace_seconds", 2.0)
    object.__setattr__(inputs, "progress", lambda progress: progress.message == "told" and stop.set())
    with pytest.raises(errors.Terminated):
        command.train(inputs)


SHELL = """
import os, signal, sys, time
def handle(number, frame):
    with open(os.environ["CHECKPOINT_DIR"] + "/state", "w") as file: file.write("saved")
    sys.exit(0)
signal.signal(signal.SIGTERM, handle)
open(os.environ["PROGRESS_FILE"], "a").write("ready\\n")
while True: time.sleep(0.02)
"""


def test_what_a_shell_script_runs_is_told_to_stop_and_saves(tmp_path: Path) -> None:
    """The shell itself ends by SIGTERM at once, and passes nothing on."""
    (tmp_path / "train.py").write_text(SHELL)
    script = tmp_path / "train.sh"
    script.write_text(f"{PYTHON} {tmp_path / 'train.py'}\necho done\n")
    stop, store = threading.Event(), FolderStore(tmp_path / "store")
    inputs = inputs_for(tmp_path, "sh", str(script), stop=stop, store=store)
    inputs.output.mkdir(parents=True)
    object.__setattr__(inputs, "progress", lambda progress: progress.message == "ready" and stop.set())
    with pytest.raises(errors.Terminated, match="the program ended, its checkpoint is stored"):
        command.train(inputs)
    assert [(path / "files" / "state").read_text() for path in store.kept] == ["saved"]


@pytest.mark.parametrize(
    ("written", "begun", "said"),
    [(1, False, "its checkpoint"), (2**33, False, "no checkpoint of its"), (1, True, "no checkpoint of its")],
    ids=["long ago", "just now", "before the signal came"],
)
def test_of_a_program_that_does_not_listen_for_sigterm_what_stood_still_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int, begun: bool, said: str
) -> None:
    terminate = Program.terminate

    def writes_and_is_terminated(program: Program) -> None:
        for state in tmp_path.rglob("state") if begun else ():
            state.write_text("half")
        terminate(program)

    monkeypatch.setattr(Program, "terminate", writes_and_is_terminated)
    code = (
        "import os, time; state = os.environ['CHECKPOINT_DIR'] + '/state'; open(state, 'w').write('saved')\n"
        f"os.utime(state, ({written}, {written}))\n"
        "open(os.environ['PROGRESS_FILE'], 'a').write('ready\\n'); time.sleep(600)"
    )
    stop, store = threading.Event(), FolderStore(tmp_path / "store")
    inputs = inputs_for(tmp_path, PYTHON, "-c", code, stop=stop, store=store)
    inputs.output.mkdir(parents=True)
    object.__setattr__(inputs, "progress", lambda progress: progress.message == "ready" and stop.set())
    with pytest.raises(errors.Terminated, match=f"the program ended, {said}"):
        command.train(inputs)
    assert len(store.kept) == (said == "its checkpoint")


def printed(code: str, log_bytes: int) -> Program:
    """A program that has printed, and ended."""
    program = Program([PYTHON, "-c", code], environment({}), log_bytes)
    wait_until(lambda: program.wait(0.1) is not None)
    program.close()
    return program


def test_a_program_that_floods_the_log_is_cut_and_what_was_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LOG_BYTES_PER_SECOND", 0)
    caplog.set_level("INFO")
    program = printed("for k in range(5000): print('line', k, 'x' * 80)", 8000)
    logged = [record.getMessage() for record in caplog.records]
    assert sum(map(len, logged)) < 20_000
    assert logged[0].startswith("program: line 0 x")
    [cut] = [line for line in logged if "left out" in line]
    assert re.fullmatch(r"program: \[49\d\d lines, [\d.]+ KiB, left out: it prints too much\]", cut)
    assert logged[-1].startswith("program: line 4999 x"), "the last ones are there"
    assert re.fullmatch(r"49\d\d lines \([\d.]+ KiB\) that the program printed are not in the log.", program.left_out())
    assert program.lines()[-1].startswith("line 4999")


def test_a_secret_of_its_arguments_is_in_no_line_that_it_prints(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    program = Program(
        [PYTHON, "-c", "print('token hf_0123456789abcdef')"], environment({}), secret=["hf_0123456789abcdef"]
    )
    wait_until(lambda: program.wait(0.1) is not None)
    program.close()
    assert program.lines() == ["token [redacted]"]
    assert "hf_0123" not in caplog.text


def test_a_line_without_end_is_cut_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    program = printed("print('x' * 1_000_000); print('after')", processes.LOG_BYTES)
    assert program.lines() == ["x" * 2000 + "… (998000 more characters)", "after"]
    assert program.left_out() == ""
