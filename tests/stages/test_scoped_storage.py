"""Trainings with credentials of their own read and write their own containers on Azurite, and no others."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

from local_stack.surroundings import scoped_settings
from tests.world import json_objects as objects
from tests.world.dispatcher_process import Stage
from tests.world.programs import hunt
from tests.world.repository import ROOT
from trainer_image.host import confinement

VICTIM = f"model-{secrets.token_hex(5)}"

# What the trainer does at its beginning and end, and what a thief in its place would do.
READS = f"""
import json, os, pathlib, sys
sys.path.insert(0, {str(ROOT)!r})
from azure.storage.blob import ContainerClient
from trainer_image.config.settings import from_mapping
from trainer_image.errors import TrainerError
from trainer_image.stop import Stop
from trainer_image.transfer.sources import Sources
def end(code, exit, message):
    said = {{"message": message, "code": code, "exit": exit}}
    pathlib.Path(os.environ["TERMINATION_MESSAGE_PATH"]).write_text(json.dumps(said))
    sys.exit(exit)
left = [name for name in ("API_KEY", "AZURE_STORAGE_CONNECTION_STRING") if name in os.environ]
if left:
    end("InternalError", 70, f"{{left}} in the environment")
try:
    settings = from_mapping(os.environ)
    with Sources(settings, Stop(), pathlib.Path("work")) as sources:
        fetched = sources.start_download(sources.config(), lambda progress: None).wait()
        sources.models.write("runs/seen.txt", " ".join(blob.name for blob in fetched.blobs).encode())
except TrainerError as error:
    end(error.code, error.exit_code, error.sentence)
folder = pathlib.Path(os.environ["CREDENTIALS_DIR"])
for name in folder.glob("*_URL"):
    stolen = name.read_text().replace(os.environ["MODEL_CONTAINER"], {VICTIM!r}).replace(fetched.container, {VICTIM!r})
    for call in (lambda it: list(it.list_blobs()), lambda it: it.upload_blob("x", b"x")):
        try:
            call(ContainerClient.from_container_url(stolen))
            end("InternalError", 70, "STOLEN")
        except Exception as error:
            if getattr(error, "status_code", None) != 403:
                raise
end("Completed", 0, "Model training completed successfully")
"""


# Without root's capabilities, which the pods of a stand-in have where it runs as root.
AS_IN_A_POD = """
import ctypes, os, sys
for capability in range(64):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.executable, [sys.executable, "-m", "trainer_image"])
"""
# Looks for every secret, and asks for what is another's with what it has: nothing.
HOSTILE = """
import json, os, runpy, urllib.error, urllib.request
runpy.run_path({hunt!r}, run_name="__main__")
answers = []
for address in {calls!r}:
    try:
        answers.append(urllib.request.urlopen(address, timeout=20).status)
    except urllib.error.HTTPError as error:
        answers.append(error.code)
with open(os.environ["OUTPUT_DIR"] + "/answers.json", "w") as file:
    json.dump(answers, file)
"""


@pytest.fixture
def blobs(azurite: Any) -> BlobServiceClient:
    service = BlobServiceClient.from_connection_string(azurite.connection_string)
    if not service.get_container_client(VICTIM).exists():
        service.create_container(VICTIM).upload_blob("model.safetensors", b"secret")
    return service


@pytest.fixture
def scoped(stage: Stage, azurite: Any) -> Iterator[Stage]:
    stage.settings |= scoped_settings()
    container = stage.template["spec"]["template"]["spec"]["containers"][0]
    container["command"] = ["python", "-c", READS]
    container["env"] = [
        {"name": "AZURE_STORAGE_CONNECTION_STRING", "value": azurite.connection_string},
        {"name": "API_KEY", "value": stage.settings["API_KEY"]},
    ]
    yield stage
    assert "sig=" not in stage.log().replace("sig=[redacted]", "")


def submit(stage: Stage, model: str, status: str = "Created", **fields: str) -> None:
    stage.portal.set_model(model, status)
    stage.send(model, **fields)


def a_dataset(blobs: BlobServiceClient) -> str:
    name = f"dataset-{secrets.token_hex(5)}"
    blobs.create_container(name).upload_blob("train.csv", b"x,y\n1,2\n" * 20)
    return name


def a_model(blobs: BlobServiceClient, model: str, dataset: str | None) -> None:
    named = f"dataset: {dataset}\n" if dataset else ""
    content = f"task: tabular\n{named}data:\n  target: y\n".encode()
    blobs.create_container(f"model-{model}").upload_blob("config.yaml", content)


def secret_of(stage: Stage, model: str) -> dict[str, Any] | None:
    path = f"/api/v1/namespaces/{stage.namespace}/secrets/model-{model}"
    try:
        found: dict[str, Any] = stage.cluster.api("GET", path)
    except Exception:
        return None
    return found


def keys_of(secret: dict[str, Any] | None) -> set[str]:
    assert secret
    return {key for key, value in secret["data"].items() if base64.b64decode(value)}


def test_a_training_and_the_next_one_of_its_model_have_what_is_theirs(scoped: Stage, blobs: BlobServiceClient) -> None:
    dataset, model = a_dataset(blobs), f"own-{secrets.token_hex(4)}"
    a_model(blobs, model, None)
    scoped.start()
    submit(scoped, model, dataset_container_name=dataset)
    scoped.wait_status(model, "Completed", 90)
    job, secret = scoped.job(model), secret_of(scoped, model)
    assert job
    assert secret
    assert secret["metadata"]["ownerReferences"][0]["uid"] == objects.uid_of(job)
    assert keys_of(secret) == {"API_KEY", "MODEL_URL", "DATASET_URL"}
    written = blobs.get_blob_client(f"model-{model}", "runs/seen.txt").download_blob().readall()
    assert written == b"train.csv"
    # Another training of the same name makes room for itself: its Secret is another one.
    scoped.wait(lambda: objects.is_reported(scoped.job(model) or {}))
    submit(scoped, model, "Reconfigure", dataset_container_name=dataset)
    scoped.wait(lambda: objects.uid_of(scoped.job(model) or {}) not in ("", objects.uid_of(job)), 60)
    scoped.wait_status(model, "Completed", 90)
    again, now = scoped.job(model), secret_of(scoped, model)
    assert again
    assert now
    assert now["metadata"]["ownerReferences"][0]["uid"] == objects.uid_of(again)
    assert now["metadata"]["uid"] != secret["metadata"]["uid"]


def test_a_hostile_program_in_its_pod_finds_no_secret_and_reaches_no_other_model(
    scoped: Stage, blobs: BlobServiceClient, azurite: Any
) -> None:
    if confinement._landlock(confinement._CREATE_RULESET, None, 0, 1) < confinement._LEAST:
        pytest.skip("this kernel has no Landlock")
    dataset, model, victim = a_dataset(blobs), f"evil-{secrets.token_hex(4)}", VICTIM.removeprefix("model-")
    known = [azurite.connection_string.split("AccountKey=")[1].split(";")[0], scoped.settings["API_KEY"]]
    relay = scoped.settings["RELAY_URL"]
    calls = [f"{relay}/api/external/models/{victim}/status", f"{azurite.blob_endpoint}/{VICTIM}/model.safetensors"]
    code = HOSTILE.format(hunt=hunt.__file__, calls=calls)
    argv = ["python", "-c", code, *(secret[::-1] for secret in known)]
    config = {"task": "command", "command": {"argv": argv}}
    blobs.create_container(f"model-{model}").upload_blob("config.yaml", json.dumps(config).encode())
    container = scoped.template["spec"]["template"]["spec"]["containers"][0]
    container["command"] = ["python", "-c", AS_IN_A_POD]
    container["env"] = [
        {"name": name, "value": value}
        for name, value in {"PYTHONPATH": str(ROOT), "ALLOW_COMMAND": "on", "DEVICE": "cpu"}.items()
    ]
    scoped.portal.set_model(victim, "Created")
    scoped.start()
    submit(scoped, model, dataset_container_name=dataset)
    scoped.wait_status(model, "Completed", 90)
    published = {
        blob.name.rpartition("/")[2]: blob.name for blob in blobs.get_container_client(f"model-{model}").list_blobs()
    }
    read = blobs.get_container_client(f"model-{model}").download_blob
    mine = (secret_of(scoped, model) or {})["data"]
    assert all(any(form.search(base64.b64decode(mine[key])) for form in hunt.FORMS) for key in mine), "it knows them"
    # Its own processes it may trace; the command lines of this machine's others would be no pod's.
    found = json.loads(read(published["found.json"]).readall())
    assert [where for where in found if not where.startswith(("traced", "command of"))] == []
    assert json.loads(read(published["answers.json"]).readall()) == [401, 403]
    assert scoped.status(victim) == "Created"
    assert [blob.name for blob in blobs.get_container_client(VICTIM).list_blobs()] == ["model.safetensors"]


def test_a_dataset_that_only_its_configuration_names_is_asked_for(scoped: Stage, blobs: BlobServiceClient) -> None:
    dataset, model = a_dataset(blobs), f"asks-{secrets.token_hex(4)}"
    a_model(blobs, model, dataset)
    scoped.start()
    submit(scoped, model)
    scoped.wait_status(model, "Completed", 90)
    assert (scoped.job(model) or {})["metadata"]["annotations"]["training-dispatcher/dataset"] == dataset
    assert keys_of(secret_of(scoped, model)) == {"API_KEY", "MODEL_URL", "DATASET_URL"}


def test_another_models_container_is_no_dataset_whoever_names_it(scoped: Stage, blobs: BlobServiceClient) -> None:
    model, other = f"steals-{secrets.token_hex(4)}", f"steals-{secrets.token_hex(4)}"
    a_model(blobs, model, VICTIM)
    scoped.start()
    submit(scoped, model)
    submit(scoped, other, dataset_container_name=VICTIM)
    scoped.wait_status(model, "Failed", 90)
    assert "is another model's container" in scoped.message(model)
    scoped.wait(lambda: any("another model's container" in entry.sentence for entry in scoped.poison()), 60)
    assert scoped.job(other) is None
