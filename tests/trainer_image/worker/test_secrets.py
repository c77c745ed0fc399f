"""A plug-in and a program that look for every secret of the trainer find none: real processes, as in a pod."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.world.programs import hunt
from tests.world.repository import ROOT
from tests.world.trainer_fakes import write_dataset
from trainer_image.host import confinement

PYTHON = sys.executable
SECRETS = {
    "API_KEY": "key-of-the-portal-5f1c",
    "AZURE_STORAGE_CONNECTION_STRING": "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=c2VjcmV0LW9mLWE=;",
}
SAS = "https://a.blob.core.windows.net/model-1?sv=2024&sig=c2lnbmF0dXJlLW9mLWE"
NEEDLES = ["key-of-the-portal-5f1c", "c2VjcmV0LW9mLWE=", "c2lnbmF0dXJlLW9mLWE"]
BACKWARDS = [needle[::-1] for needle in NEEDLES]

PLUGIN = """
import json
from trainer_image.errors import ConfigInvalid
from trainer_image.tasks.base import Task
from tests.world.programs.hunt import hunt

class Own(Task):
    name = "own"
    interface = 1

    def check(self, settings):
        with open(settings.params["found"], "w") as file:
            json.dump(hunt(settings.params["backwards"]), file)
        raise ConfigInvalid("Invalid configuration: custom.params: has been read")

    def prepare(self, data, settings):
        raise NotImplementedError

    def restore(self, description):
        raise NotImplementedError
"""


def without_capabilities() -> None:
    """As a pod is: what root may do beyond its own files is given up, for this process and what it starts."""
    for capability in range(64):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for name, content in {"API_KEY": SECRETS["API_KEY"], "MODEL_URL": SAS, "DATASET_URL": SAS}.items():
        (credentials / name).write_text(content)
    write_dataset(tmp_path)
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{tmp_path / 'site'}",
        "STATUS_TRACKING": "off",
        "ALLOW_COMMAND": "on",
        "TERMINATION_MESSAGE_PATH": str(tmp_path / "words"),
        "CREDENTIALS_DIR": str(credentials),
        **SECRETS,
    }


def trained(folder: Path, environment: dict[str, str], config: object) -> tuple[int, str]:
    """(exit code, what it said)"""
    (folder / "config.yaml").write_text(json.dumps(config))
    done = subprocess.run(
        [PYTHON, "-m", "trainer_image", "train", "--data=data", "--config=config.yaml", "--out=out", "--device=cpu"],
        cwd=folder,
        env=environment,
        preexec_fn=without_capabilities,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_hunt_finds_what_is_not_hidden(environment: dict[str, str], tmp_path: Path) -> None:
    """Or else the next tests would mean nothing."""
    code = "import os, time; kept = open(os.environ['CREDENTIALS_DIR'] + '/MODEL_URL');"
    code += "print(1, flush=True); time.sleep(60)"
    options: dict[str, Any] = {"env": environment, "preexec_fn": without_capabilities, "stdout": subprocess.PIPE}
    with subprocess.Popen([PYTHON, "-c", code], **options) as careless:
        assert careless.stdout is not None
        careless.stdout.readline()
        where = {name: environment[name] for name in ("PATH", "CREDENTIALS_DIR")}
        hunting = [PYTHON, hunt.__file__, *BACKWARDS]
        done = subprocess.run(hunting, env=where, preexec_fn=without_capabilities, capture_output=True, check=True)
        careless.kill()
    found = set(json.loads(done.stdout))
    pid = careless.pid
    assert {f"environment of {pid}", f"memory of {pid}", f"memory of {pid}, copied", f"traced {pid}"} <= found
    assert {f"file {tmp_path}/credentials/API_KEY", f"open file /proc/{pid}/fd/3"} <= found


def test_a_program_that_looks_for_every_secret_finds_none(environment: dict[str, str], tmp_path: Path) -> None:
    argv = [PYTHON, hunt.__file__, *BACKWARDS]
    code, said = trained(tmp_path, environment, {"task": "command", "command": {"argv": argv}})
    assert code == 0, said
    [found] = (tmp_path / "out" / "runs").glob("*/found.json")
    assert [where for where in json.loads(found.read_text()) if "traced" not in where] == []


def test_a_plug_in_that_looks_for_every_secret_finds_none(environment: dict[str, str], tmp_path: Path) -> None:
    info = tmp_path / "site" / "own-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[trainer_image.tasks]\nown = own:Own\n")
    (tmp_path / "site" / "own.py").write_text(PLUGIN)
    params = {"found": str(tmp_path / "found.json"), "backwards": BACKWARDS}
    code, said = trained(
        tmp_path, environment, {"task": "custom", "custom": {"entry_point": "own:Own", "params": params}}
    )
    assert (code, "custom.params: has been read" in said) == (78, True), said
    assert json.loads((tmp_path / "found.json").read_text()) == []


@pytest.mark.parametrize("landlock", [True, False])
def test_the_log_says_where_the_kernel_confines_nothing(
    environment: dict[str, str], tmp_path: Path, landlock: bool
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    if not landlock:
        (site / "sitecustomize.py").write_text(
            "from trainer_image.host import confinement\nconfinement._landlock = lambda *given: -1\n"
        )
    argv = ["sh", "-c", "echo w > $OUTPUT_DIR/weights; cat $CREDENTIALS_DIR/API_KEY > /dev/null && echo has read it"]
    code, said = trained(tmp_path, environment, {"task": "command", "command": {"argv": argv}})
    assert code == (79 if landlock else 0), said
    warning = (
        "WARNING What trains can read every file that this user can, credentials among them: the kernel has no Landlock"
    )
    assert (warning in said, "program: has read it" in said) == (not landlock, not landlock)


def test_a_confined_process_reads_writes_and_moves_files_as_before(tmp_path: Path) -> None:
    for name in ("hidden", "a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    code = (
        "import os, sys; from pathlib import Path; from trainer_image.host.confinement import confine\n"
        "here = Path(sys.argv[1])\n"
        "assert confine([here / 'hidden', here / 'absent']) is None\n"
        "(here / 'a' / 'new').write_text('new'); os.rename(here / 'a' / 'new', here / 'b' / 'moved')\n"
        "assert (here / 'b' / 'moved').read_text() == 'new'; assert Path('/proc/self/status').read_text()\n"
        "assert os.listdir('/'); assert os.listdir(here / 'hidden') == ['file']\n"
        "try:\n    (here / 'hidden' / 'file').read_text()\nexcept PermissionError:\n    print('hidden')\n"
        "try:\n    os.link(here / 'hidden' / 'file', here / 'b' / 'link')\nexcept OSError:\n    print('not linked')\n"
        "for name in ('hidden/file', 'hidden'):\n    try:\n        os.rename(here / name, here / 'b' / 'moved')\n"
        "    except OSError:\n        print('not moved')\n"
        "os.rename(here / 'hidden', here / 'renamed')\n"
        "try:\n    (here / 'renamed' / 'file').read_text()\nexcept PermissionError:\n    print('hidden still')\n"
        "try:\n    os.kill(os.getppid(), 0)\nexcept PermissionError:\n    print('not signalled')\n"
    )
    done = subprocess.run([PYTHON, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, check=False)
    version = confinement._landlock(confinement._CREATE_RULESET, None, 0, 1)
    if version < confinement._LEAST:
        pytest.skip("this kernel has no Landlock")
    found = ["hidden", "not linked", "not moved", "not moved", "hidden still"]
    signals = ["not signalled"] if version >= confinement._WITH_SCOPES else []
    assert (done.stdout.splitlines(), done.stderr) == ([*found, *signals], "")


@pytest.mark.parametrize("call", ["iterdir", "exists"])
def test_a_folder_on_the_way_that_cannot_be_looked_into_is_told_and_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: str
) -> None:
    if confinement._landlock(confinement._CREATE_RULESET, None, 0, 1) < confinement._LEAST:
        pytest.skip("this kernel has no Landlock")

    def closed(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, call, closed)
    monkeypatch.setattr(confinement, "_allow", lambda ruleset, path: None)
    assert "cannot be looked into (Permission denied" in str(confinement.confine([tmp_path]))
