"""Failure modes of a user's program: what it leaves running, what it puts in a file's place, what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path

import pytest

from local_stack.processes import wait_until
from tests.trainer_image.command.programs import LEAVE, inputs_for, python
from tests.world.repository import ROOT
from tests.world.trainer_fakes import write_dataset
from trainer_image import command, errors
from trainer_image.stop import Stop
from trainer_image.storage.local import LocalContainer
from trainer_image.transfer.metrics_stream import MetricsStream
from trainer_image.transfer.publish import Latest, publish
from trainer_image.worker.child import Worker

# A process that has left its program's group and session twice over, and whose parents have ended.
LEFT = """
import os, sys, time
def gone(what):
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                os.write(writing, b"%d\\n" % os.getpid())
                what()
                time.sleep(600)
            os._exit(0)
        os._exit(0)
    return int(os.read(reading, 32))
def note(pid):
    with open(os.environ["OUTPUT_DIR"] + "/pid", "w") as file: file.write(str(pid))
"""


def alive(pid: int) -> bool:
    try:
        return b"State:\tZ" not in Path(f"/proc/{pid}/status").read_bytes()
    except FileNotFoundError:
        return False


@pytest.fixture
def others() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Children of the tests' own process, in its session and in one of their own."""
    started = [subprocess.Popen(["sleep", "600"], start_new_session=new) for new in (False, True)]
    yield started
    for process in started:
        process.kill()
        process.wait()


def trained(tmp_path: Path, code: str) -> Path:
    """OUTPUT_DIR of a program that was trained to its end."""
    inputs = inputs_for(tmp_path, sys.executable, "-c", code)
    inputs.output.mkdir(parents=True)
    command.train(inputs)
    return inputs.output


KEEPER = {
    "as usual": "",
    "killed": "os.kill(os.getppid(), 9); time.sleep(600)",
    "stopped": "open(os.environ['PROGRESS_FILE'], 'a').write('ready\\n'); os.kill(os.getppid(), 19)",
}


@pytest.mark.parametrize("keeper", ["as usual", "stopped"])
def test_f74_nothing_of_a_program_outlives_it(
    tmp_path: Path, keeper: str, others: list[subprocess.Popen[bytes]]
) -> None:
    stop = Stop()
    code = LEFT + f"pid = gone(lambda: None); note(pid); {KEEPER[keeper]}\n"
    inputs = inputs_for(tmp_path, sys.executable, "-c", code, stop=stop.event)
    inputs.output.mkdir(parents=True)
    if keeper == "stopped":  # its end is not heard of: somebody has to stop the training
        object.__setattr__(inputs, "grace_seconds", 0.4)
        object.__setattr__(inputs, "progress", lambda progress: progress.message == "ready" and stop.set("terminated"))
        with pytest.raises(errors.Terminated):
            command.train(inputs)
    else:
        command.train(inputs)
    assert not alive(int((inputs.output / "pid").read_text()))
    assert all(other.poll() is None for other in others), "only the program's own"


def test_f74_a_program_that_ends_its_keeper_is_ended_itself(
    tmp_path: Path, others: list[subprocess.Popen[bytes]]
) -> None:
    inputs = inputs_for(tmp_path, sys.executable, "-c", LEFT + f"note(gone(lambda: None)); {KEEPER['killed']}\n")
    inputs.output.mkdir(parents=True)
    with Worker("command") as worker, pytest.raises(errors.UserCodeKilled, match="killed by signal 9"):
        worker.train(inputs)
    pid = int((inputs.output / "pid").read_text())
    assert not alive(pid)
    assert all(other.poll() is None for other in others), "only the program's own"


def test_f74_what_a_killed_trainer_leaves_ends_too(tmp_path: Path) -> None:
    code = (
        "from trainer_image.command.process import Program, environment\n"
        f"program = Program([{sys.executable!r}, '-c', {LEFT + 'print(gone(lambda: None)); time.sleep(600)'!r}],"
        " environment({}))\n"
        "while not program.lines():\n    program.wait(0.02)\n"
        "print(program.lines()[-1], flush=True)\nprogram.wait(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        left = int(trainer.stdout.readline())
        assert alive(left)
        trainer.kill()
    wait_until(lambda: not alive(left))


def test_f74_a_file_that_becomes_a_link_is_not_published(tmp_path: Path) -> None:
    """What is left of a program, should there be anything, has no part in what was checked."""
    (tmp_path / "outside").write_text("secret")
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for name in ("a", "sub/b"):
        (folder / name).write_text("weights")

    class Swapping(LocalContainer):
        def upload(self, name: str, content: BufferedIOBase, etag: str | None = "*") -> str:
            (folder / "sub" / "b").unlink()
            (folder / "sub" / "b").symlink_to(tmp_path / "outside")
            return super().upload(name, content, etag)

    (tmp_path / "container").mkdir()
    container = Swapping(tmp_path / "container")
    with pytest.raises(errors.UserCodeFailed, match="sub/b is no file of its own, or not any more"):
        publish(container, folder, "run-1", Latest(None))
    assert not (tmp_path / "container" / "latest.json").exists()
    assert "secret" not in "".join(path.read_text() for path in container.root.rglob("*") if path.is_file())


def test_f74_a_link_within_becomes_the_file_that_was_checked(tmp_path: Path) -> None:
    output = trained(tmp_path, LEAVE + "os.symlink('weights', os.environ['OUTPUT_DIR'] + '/last')")
    assert not (output / "last").is_symlink()
    assert (output / "last").read_text() == "w"


def test_f74_the_folder_itself_cannot_be_exchanged(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_text("secret")
    there = str(tmp_path / "elsewhere")
    code = f"import os; o = os.environ['OUTPUT_DIR']; os.rename(o, o + '2'); os.symlink({there!r}, o)"
    with pytest.raises(errors.UserCodeFailed, match="something else in the place of its folder OUTPUT_DIR"):
        python(tmp_path, code)


def test_f74_a_link_in_the_place_of_the_curve_is_neither_read_nor_written_through(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text('{"secret": 1}\n')
    code = LEAVE + (
        f"o = os.environ['OUTPUT_DIR']; os.symlink({str(outside)!r}, o + '/metrics.jsonl');"
        "open(os.environ['PROGRESS_FILE'], 'a').write('{\"loss\": 1}\\n')"
    )
    with pytest.raises(errors.UserCodeFailed, match="leads out of it"):
        python(tmp_path, code)
    assert outside.read_text() == '{"secret": 1}\n'
    (tmp_path / "metrics.jsonl").symlink_to(outside)
    container = LocalContainer(tmp_path / "container")
    with MetricsStream(container, "run-1", tmp_path / "metrics.jsonl", Stop(), 3600):
        pass
    assert not container.root.exists()


KEY = "key/of+the=portal/0123456789"
SIGNATURE = "aB3dE5%2FgH7iJ9kL1mN3oP5qR7sT9uV1wX3yZ5%3D"


def trainer(folder: Path, words: str, *arguments: str, **settings: str) -> tuple[int, str]:
    """(exit code, all that a trainer in this folder showed: both streams and the last words)"""
    reply = subprocess.run(
        [sys.executable, "-m", "trainer_image", *arguments],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "STATUS_TRACKING": "off",
            "TERMINATION_MESSAGE_PATH": str(folder / words),
            **settings,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return reply.returncode, reply.stdout + reply.stderr + (folder / words).read_text()


def test_f73_no_stream_and_no_file_shows_a_secret(tmp_path: Path) -> None:
    """In the program's command line, in what it prints, in its progress, in a setting that is refused."""
    write_dataset(tmp_path)
    says = (
        "import os, sys; print('by', sys.argv[2], flush=True); sys.stderr.write(sys.argv[2][:20] + '\\n');"
        "open(os.environ['PROGRESS_FILE'], 'a').write('with ' + sys.argv[2] + '\\n');"
        "open(os.environ['OUTPUT_DIR'] + '/weights', 'w').write('w'); sys.exit(int(sys.argv[3]))"
    )
    shown = ""
    for code in ("0", "1"):
        argv = [sys.executable, "-c", says, "--api-key", KEY, code, "--token", "of-another-service", KEY]
        config = {"task": "command", "command": {"argv": argv}}
        (tmp_path / "config.yaml").write_text(json.dumps(config))
        flags = ["--data", "data", "--config", "config.yaml", "--out", "out"]
        settings = {"API_KEY": KEY, "ALLOW_COMMAND": "on", "LOG_LEVEL": "DEBUG"}
        ended, said = trainer(tmp_path, f"words-{code}", "train", *flags, **settings)
        assert ended == (79 if code == "1" else 0), said
        shown += said
    assert "program: by [redacted]" in shown
    published = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "weights"]
    assert {"report.json", "report.html", "config.resolved.yaml", "model.json"} <= {path.name for path in published}
    for text in (shown, *(path.read_text() for path in published)):
        for secret in (KEY, KEY[:20], "of-another-service"):
            assert secret not in text


def test_f73_a_signature_in_the_account_s_address_is_shown_nowhere(tmp_path: Path) -> None:
    address = f"https://a.blob.core.windows.net/?sv=2022&sig={SIGNATURE}"
    ended, shown = trainer(tmp_path, "words", MODEL_CONTAINER="model-1", AZURE_STORAGE_ACCOUNT_URL=address)
    assert ended == 78
    assert "AZURE_STORAGE_ACCOUNT_URL" in shown
    assert SIGNATURE not in shown


def test_f73_whatever_writes_to_a_stream_goes_through_the_same_hands(tmp_path: Path) -> None:
    code = f"""
import logging, os, sys
from trainer_image.host import hidden
os.environ["API_KEY"] = {KEY!r}
hidden.guard_streams()
hidden.guard_streams()
key = os.environ["API_KEY"]
print("printed", key)
sys.stdout.write("in " + key[:10]); sys.stdout.write(key[10:] + " pieces\\n")
sys.stdout.buffer.write(b"bytes " + key.encode() + b"\\xff\\n")
print("a bar", key, end="\\r")
print("unfinished", key, end="", flush=True)
logging.basicConfig(stream=sys.stderr)
logging.getLogger("x").error("logged %s", key, exc_info=ValueError(key))
raise RuntimeError(key)
"""
    reply = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    said = reply.stdout + reply.stderr
    assert KEY.encode() not in said
    for words in (b"printed [redacted]\n", b"in [redacted] pieces\n", b"bytes [redacted]\xff\n", b"a bar [redacted]\r"):
        assert words in said
    assert said.count(b"[redacted]") >= 8
    assert b"RuntimeError: [redacted]" in said
