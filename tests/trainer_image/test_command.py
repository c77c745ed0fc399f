"""Task `command`: who may run what, what a program is told and may leave, how its ends are read."""

from __future__ import annotations

import contextlib
import ctypes
import inspect
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient
from hypothesis import given
from hypothesis import strategies as st

from local_stack.azurite import Azurite
from local_stack.processes import wait_until
from tests.world.processes import alive
from tests.world.repository import ROOT
from tests.world.training_data import FolderStore, run_inputs
from trainer_image import command, errors
from trainer_image.command import output, process
from trainer_image.command.checkpoints import CheckpointFolder
from trainer_image.command.progress import ProgressFile
from trainer_image.config.model_config import parse_config
from trainer_image.config.settings import Settings, from_mapping
from trainer_image.contract import Progress, RunInputs, RunResult
from trainer_image.host import memory
from trainer_image.limits import Limits
from trainer_image.run import lifecycle as run
from trainer_image.run.backend import backend_for
from trainer_image.stop import Stop

PYTHON = sys.executable
LEAVE = "import os; open(os.environ['OUTPUT_DIR'] + '/weights', 'w').write('w'); "


@pytest.fixture(autouse=True)
def _visible() -> Iterator[None]:
    """The tests' own process is not hidden from its children for good."""
    yield
    ctypes.CDLL(None).prctl(process._PR_SET_DUMPABLE, 1)


def inputs_for(tmp_path: Path, *argv: str, **options: Any) -> RunInputs:
    (tmp_path / "data").mkdir(exist_ok=True)
    config = json.dumps({"task": "command", "command": {"argv": list(argv)}, **options.pop("config", {})})
    return run_inputs(tmp_path / "data", tmp_path / secrets.token_hex(4) / "output", config, **options)


def python(tmp_path: Path, code: str, **options: Any) -> RunResult:
    inputs = inputs_for(tmp_path, PYTHON, "-c", code, **options)
    inputs.output.mkdir(parents=True)
    return command.train(inputs)


def ending(tmp_path: Path, code: str, **options: Any) -> errors.TrainerError:
    with pytest.raises(errors.TrainerError) as told:
        python(tmp_path, code, **options)
    return told.value


@pytest.mark.parametrize(
    ("argv", "allowed", "told"),
    [
        ([PYTHON, "x"], "on", None),
        ([PYTHON, "x"], "true", None),
        ([PYTHON, "train.py", "--lr", "1"], f"{PYTHON} train.py", None),
        ([PYTHON, "my train.py"], f"{PYTHON} 'my train.py'", None),
        ([PYTHON], "off", "task: command is switched off here"),
        ([PYTHON], "OFF", "task: command is switched off here"),
        ([PYTHON, "-c", "evil"], f"{PYTHON} train.py", f"command.argv: must begin with {PYTHON} train.py"),
        ([PYTHON], f"{PYTHON} train.py", f"command.argv: must begin with {PYTHON} train.py"),
        ([PYTHON, "train.py.evil"], f"{PYTHON} train.py", "command.argv: must begin with"),
        (["no-such-program"], "on", "command.argv.0: there is no program no-such-program in this image"),
        ([__file__], "on", "command.argv.0: there is no program "),
        (["pyth\non"], "on", "command.argv.0: there is no program pyth\\non in this image"),
    ],
)
def test_only_what_the_operator_allows_and_the_image_holds_runs(
    argv: list[str], allowed: str, told: str | None
) -> None:
    config = parse_config(json.dumps({"task": "command", "command": {"argv": argv}}).encode())
    settings = Settings(run_id="r", allow_command=allowed)
    if told is None:
        assert backend_for(config, settings)() is command
        return
    with pytest.raises(errors.ConfigInvalid) as refused:
        backend_for(config, settings)
    assert refused.value.sentence.startswith(f"Invalid configuration: {told}")


def test_nothing_is_allowed_unless_the_operator_says_so(tmp_path: Path) -> None:
    local = {"OUT": str(tmp_path), "CONFIG": __file__}
    assert from_mapping({}, local).allow_command == "off"
    assert from_mapping({"ALLOW_COMMAND": "python3 train.py"}, local).allow_command == "python3 train.py"
    with pytest.raises(errors.UsageError, match="ALLOW_COMMAND"):
        from_mapping({"ALLOW_COMMAND": "python3 'train.py"}, local)


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


def test_a_program_cannot_read_the_trainer_s_environment_from_the_system() -> None:
    """As in the pod: another process of the same user, who is not root."""
    code = (
        "import ctypes, logging, os, sys\nlogger = logging.getLogger()\n"
        f"_PR_SET_DUMPABLE = {process._PR_SET_DUMPABLE}\n{inspect.getsource(process.hide_own_memory)}\n"
        "def seen():\n"
        "    if (child := os.fork()) == 0:\n"
        "        try:\n"
        "            os._exit(len(open(f'/proc/{os.getppid()}/environ').read(1)))\n"
        "        except PermissionError:\n"
        "            os._exit(13)\n"
        "    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])\n"
        "os.geteuid() or os.setuid(65534)\n"
        "ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1)\n"  # as after an exec
        "print(seen())\nhide_own_memory()\nprint(seen())\n"
    )
    done = subprocess.run([PYTHON, "-I", "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    if before == 13:
        pytest.skip("this machine does not let a process look into another of the same user")
    assert (before, after) == (1, 13)


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
        ("import os; os.abort()", 205, "killed by signal 6"),
        ("import os; os.kill(os.getpid(), 9)", 205, "killed by signal 9"),
        ("raise RuntimeError('DefaultCPUAllocator: can\\'t allocate memory')", 137, "Out of memory"),
        ("raise SystemExit(0)", 79, "left nothing in OUTPUT_DIR"),
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
        "while program.tail() != 'running':\n    program.wait(0.02)\n"
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
    assert command._budgeted(inputs_for(tmp_path, PYTHON, config={"train": {"time_budget": "30m"}}))
    assert not command._budgeted(inputs_for(tmp_path, PYTHON))


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


LINES = [
    ("plain words", ("plain words", 0, None, {})),
    ('{"step": 3, "loss": 0.5}', ("Step 3, loss 0.5", 3, None, {"loss": 0.5})),
    ('{"message": "Epoch 2", "step": 4, "fraction": 0.25}', ("Epoch 2", 4, 0.25, {})),
    ('{"step": "x", "fraction": 7, "loss": NaN, "ok": true}', ("Step 0", 0, None, {})),
    ('{"step": -1, "big": 1e999, "huge": 1' + "0" * 400 + "}", ("Step 0", 0, None, {})),
    ("{broken", ("{broken", 0, None, {})),
    ("[1, 2]", ("[1, 2]", 0, None, {})),
    ("\x1b[31mred\x07", ("red ", 0, None, {})),
    ("x" * 400, ("x" * 299 + "…", 0, None, {})),
]


@pytest.mark.parametrize(("line", "expected"), LINES, ids=range(len(LINES)))
def test_a_line_of_progress_is_a_message_or_figures(
    tmp_path: Path, line: str, expected: tuple[str, int, float | None, dict[str, float]]
) -> None:
    said: list[Progress] = []
    progress = ProgressFile(tmp_path / "progress", tmp_path / "history", said.append)
    with progress.path.open("w") as file:
        file.write(line)
    progress.drain()
    assert said == [], "half a line is not read"
    with progress.path.open("a") as file:
        file.write("\n\n")
    progress.drain()
    assert said == [Progress(*expected)]
    kept = progress.history.read_text().splitlines() if progress.history.exists() else []
    assert [json.loads(record) for record in kept] == ([{"step": expected[1], **expected[3]}] if expected[3] else [])


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_no_bytes_in_the_progress_file_harm_the_trainer(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("progress")
    progress = ProgressFile(folder / "progress", folder / "history", lambda progress: None)
    for part in parts:
        with progress.path.open("ab") as file:
            file.write(part)
        progress.poll()
    progress.drain()
    assert progress.poll() is False


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "nothing"])
def test_what_is_no_file_in_place_of_the_progress_file_is_passed_over(tmp_path: Path, kind: str) -> None:
    said: list[Progress] = []
    progress = ProgressFile(tmp_path / "progress", tmp_path / "history", said.append)
    progress.path.unlink()
    if kind == "pipe":
        os.mkfifo(progress.path)
    elif kind == "link":
        (tmp_path / "secret").write_text("secret\n")
        progress.path.symlink_to(tmp_path / "secret")
    elif kind == "folder":
        progress.path.mkdir()
    progress.drain()
    assert said == []


def test_figures_of_the_program_reach_report_and_termination_message(tmp_path: Path) -> None:
    code = LEAVE + (
        "o = os.environ['OUTPUT_DIR']; open(o + '/metrics.json', 'w').write("
        '\'{"accuracy": 0.9, "<b>": 1, "note": "x", "nan": NaN}\');'
        "open(os.environ['PROGRESS_FILE'], 'a').write('{\"step\": 2, \"loss\": 1}\\n')"
    )
    inputs = inputs_for(tmp_path, PYTHON, "-c", code)
    inputs.output.mkdir(parents=True)
    result = command.train(inputs)
    assert (dict(result.metrics), result.steps) == ({"accuracy": 0.9, "<b>": 1.0}, 2)
    report = json.loads((inputs.output / "report.json").read_text())
    assert (report["headline"], report["metrics"]) == ("accuracy", {"accuracy": 0.9, "<b>": 1.0})
    assert report["training"]["notes"] == ["2 entries of metrics.json are no finite numbers, or too many: left out."]
    assert (inputs.output / "metrics.jsonl").read_text() == '{"step": 2, "loss": 1.0}\n'
    assert "<b>" not in (inputs.output / "report.html").read_text()
    assert json.loads((inputs.output / "model.json").read_text())["task"] == "command"


@pytest.mark.parametrize("content", ["", "[1]", "{", "{" + '"a": 1,' * 20_000, "[" * 5000])
def test_a_metrics_file_that_cannot_be_read_costs_no_training(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.json").write_text(content)
    figures, notes = output.read_metrics(tmp_path / "metrics.json")
    assert figures == {}
    assert notes[0].startswith("metrics.json was not read: ")


def leave(folder: Path, what: str) -> None:
    """One thing in a program's OUTPUT_DIR."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights").write_bytes(b"12345")
    if what == "link out":
        (folder / "passwd").symlink_to("/etc/passwd")
    elif what == "folder out":
        (folder / "etc").symlink_to("/etc")
    elif what == "link up":
        (folder / "up").symlink_to("../output2/x")
    elif what == "link in":
        (folder / "last").symlink_to("weights")
    elif what == "folder in":
        (folder / "sub").mkdir()
        (folder / "again").symlink_to("sub")
    elif what == "dangling":
        (folder / "gone").symlink_to("nothing")
    elif what == "pipe":
        os.mkfifo(folder / "pipe")
    elif what == "newline":
        (folder / "a\nb").touch()
    elif what == "twins":
        (folder / "README.MD").touch()
    elif what == "report folder":
        (folder / "report.json").mkdir()
        (folder / "report.json" / "x").touch()


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("one file", None),
        ("link in", None),
        ("link out", "a link in OUTPUT_DIR that leads out of it: passwd"),
        ("folder out", "a link in OUTPUT_DIR that leads out of it: etc"),
        ("link up", "a link in OUTPUT_DIR that leads out of it: up"),
        ("folder in", "something in OUTPUT_DIR that is no file: again"),
        ("dangling", "something in OUTPUT_DIR that is no file: gone"),
        ("pipe", "something in OUTPUT_DIR that is no file: pipe"),
        ("newline", "no usable name: a\\nb: the name contains a control character"),
        ("twins", "no usable name: README.md: differs from README.MD"),
        ("report folder", "no usable name: report.json: the name is that of a file and of a folder"),
    ],
)
def test_only_files_of_the_program_s_own_are_published(tmp_path: Path, what: str, told: str | None) -> None:
    leave(tmp_path / "output", what)
    if told is None:
        assert "weights" in output.published(tmp_path / "output", Limits())
        return
    with pytest.raises(errors.UserCodeFailed) as refused:
        output.published(tmp_path / "output", Limits())
    assert told in refused.value.sentence


def test_a_model_beyond_the_operator_s_limit_is_not_published(tmp_path: Path) -> None:
    leave(tmp_path / "output", "one file")
    assert output.published(tmp_path / "output", Limits(output_bytes=5))
    with pytest.raises(errors.LimitExceeded, match="left 5 bytes in OUTPUT_DIR; the limit is 4 bytes"):
        output.published(tmp_path / "output", Limits(output_bytes=4))


def keeper(tmp_path: Path, store: FolderStore) -> CheckpointFolder:
    place = tmp_path / f"pod-{secrets.token_hex(3)}"
    (place / "saved").mkdir(parents=True)
    return CheckpointFolder(store, place / "saved", place, place / "history", every=300)


def test_the_next_pod_gets_the_folder_as_it_was(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    first = keeper(tmp_path, store)
    assert first.restore() == 0.0
    (first._folder / "deep").mkdir()
    (first._folder / "deep" / "weights").write_bytes(b"w")
    (first._folder / "MANIFEST.json").write_text("the program's own")
    (first._folder / ".half").write_text("not whole")
    (first._folder / ".part").mkdir()
    (first._folder / ".part" / "weights").write_text("not whole")
    first._history.write_text("{}\n")
    assert first.save_now(step=7, within=10)
    second = keeper(tmp_path, store)
    assert second.restore() > 0
    assert (second.step, second.resumed_from) == (7, 7)
    assert {p.relative_to(second._folder).as_posix() for p in second._folder.rglob("*") if p.is_file()} == {
        "deep/weights", "MANIFEST.json",
    }  # fmt: skip
    assert second._history.read_text() == "{}\n"
    assert second.save_now(step=9, within=10)
    assert len(store.kept) == 1, "nothing has changed, so nothing is stored again"
    third = keeper(tmp_path, store)
    third.restore()
    (third._folder / "deep" / "weights").write_bytes(b"w2")
    assert third.save_now(step=7, within=10)
    assert [path.name for path in store.kept] == ["step-7", "step-8"], "a later one never takes an earlier one's place"


def test_a_folder_that_changes_while_it_is_copied_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    store = FolderStore(tmp_path / "store")
    folder = keeper(tmp_path, store)
    (folder._folder / "a").write_text("1")
    copyfile = command.checkpoints.shutil.copyfile  # type: ignore[attr-defined]

    def busy(source: Path, target: Path, **options: bool) -> None:
        copyfile(source, target, **options)
        (folder._folder / "b").write_text("written meanwhile")

    monkeypatch.setattr(command.checkpoints.shutil, "copyfile", busy)  # type: ignore[attr-defined]
    assert not folder.save_now(step=1, within=10)
    assert store.kept == []
    assert "Checkpoint put off: the program wrote to it meanwhile" in caplog.text


def test_a_storage_that_does_not_answer_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    """The termination message is to be written before the kubelet's SIGKILL, whatever becomes of the checkpoint."""
    answers = threading.Event()

    class Slow(FolderStore):
        def keep(self, folder: Path) -> None:
            answers.wait(600)

    stop = threading.Event()
    code = (
        "import os, signal, time; signal.signal(signal.SIGTERM, lambda *seen: os._exit(0));"
        "open(os.environ['CHECKPOINT_DIR'] + '/state', 'w').write('x');"
        "open(os.environ['PROGRESS_FILE'], 'a').write('ready\\n'); time.sleep(60)"
    )
    inputs = inputs_for(tmp_path, PYTHON, "-c", code, stop=stop, store=Slow(tmp_path / "store"))
    inputs.output.mkdir(parents=True)
    object.__setattr__(inputs, "grace_seconds", 2.0)
    object.__setattr__(inputs, "progress", lambda progress: progress.message == "ready" and stop.set())
    try:
        with pytest.raises(errors.Terminated, match="no checkpoint of its last steps"):
            command.train(inputs)
    finally:
        answers.set()


def test_a_link_that_takes_a_file_s_place_is_not_followed_into_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderStore(tmp_path / "store")
    folder = keeper(tmp_path, store)
    (folder._folder / "a").write_text("1")
    seen = command.checkpoints.look(folder._folder)
    (folder._folder / "a").unlink()
    (folder._folder / "a").symlink_to("/etc/hostname")
    monkeypatch.setattr(command.checkpoints, "look", lambda folder: seen)
    assert not folder.save_now(step=1, within=10)
    assert store.kept == []


def test_stopping_through_the_whole_flow_ends_with_143(tmp_path: Path) -> None:
    """The settings of a pod, `run.run`, and a program that is stopped."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("a\n1\n")
    config = tmp_path / "config.yaml"
    code = "import os, time; open(os.environ['DATASET_DIR'] + '/here', 'w'); time.sleep(60)"
    config.write_text(json.dumps({"task": "command", "command": {"argv": [PYTHON, "-c", code]}}))
    settings = Settings(
        run_id="run-1",
        termination_path=tmp_path / "termination-message",
        data=tmp_path / "data",
        config=config,
        out=tmp_path / "out",
        allow_command="on",
        grace_seconds=10,
    )
    stop = Stop()

    def stop_when_it_runs() -> None:
        wait_until((tmp_path / "data" / "here").exists)
        stop.set("terminated")

    threading.Thread(target=stop_when_it_runs).start()
    outcome = run.run(settings, stop)
    assert (outcome.exit_code, outcome.code) == (143, "Terminated")
    assert json.loads((tmp_path / "termination-message").read_bytes())["retryable"] is True
    assert not (tmp_path / "out" / "latest.json").exists()


def test_a_program_in_a_pod_gets_no_key_of_the_account_that_it_is_trained_from(
    tmp_path: Path, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole flow with containers: dataset down, checkpoint and model up, and what the program could see of keys."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
    monkeypatch.setenv("API_KEY", "key-of-the-portal")
    code = (
        "import json, os, shutil; data, out, saved = (os.environ[n] for n in"
        " ('DATASET_DIR', 'OUTPUT_DIR', 'CHECKPOINT_DIR'));"
        "attempt = len(os.listdir(saved)); os.makedirs(saved + f'/{attempt}/deep');"
        "open(saved + f'/{attempt}/deep/state', 'w').write('x');"
        "attempt or os._exit(203);"
        "shutil.copy(data + '/train.csv', out); json.dump(dict(os.environ), open(out + '/environment', 'w'))"
    )
    name = secrets.token_hex(6)
    service = BlobServiceClient.from_connection_string(azurite.connection_string)
    models = service.create_container(f"model-{name}")
    models.upload_blob("config.yaml", json.dumps({"task": "command", "command": {"argv": [PYTHON, "-c", code]}}))
    service.create_container(f"dataset-{name}").upload_blob("train.csv", b"a,b\n1,2\n")
    settings = Settings(
        run_id="run-1",
        dispatched=True,
        model_container=f"model-{name}",
        dataset_container=f"dataset-{name}",
        connection_string=azurite.connection_string,
        api_key="key-of-the-portal",
        termination_path=tmp_path / "termination-message",
        work_dir=tmp_path / "work",
        allow_command=PYTHON,
    )
    assert run.run(settings, Stop()).exit_code == 203
    outcome = run.run(settings, Stop())
    assert (outcome.exit_code, outcome.location) == (0, f"model-{name}/runs/run-1")
    blobs = {blob.name for blob in models.list_blobs()}
    assert {f"runs/run-1/{file}" for file in ("train.csv", "environment", "report.json", "MANIFEST.json")} <= blobs
    assert len([blob for blob in blobs if blob.endswith("/files/0/deep/state")]) == 2, "kept by both attempts"
    seen = models.download_blob("runs/run-1/environment").readall().decode()
    assert "DATASET_DIR" in seen
    for secret in (*settings.secrets, "AZURE_STORAGE"):
        assert secret not in seen
