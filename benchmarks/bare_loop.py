"""The six calls of a launch and nothing else: the floor that the dispatcher's rate is compared with.

Run by benchmarks.launch_rate as a process of its own; prints its CPU seconds.
"""

from __future__ import annotations

import copy
import json
import os
import queue
import threading
import time
from typing import Any

import requests
from azure.storage.queue import QueueClient
from kubernetes import client
from kubernetes import config as _config

THREADS = 16


def main() -> None:
    """Settings as the dispatcher's, from the environment; BENCH_JOB is the Job to create, as JSON."""
    config: Any = _config
    env = os.environ
    template = json.loads(env["BENCH_JOB"])
    total = int(env["BENCH_REQUESTS"])
    waiting: queue.Queue[Any] = queue.Queue(maxsize=2 * THREADS)
    done = threading.Semaphore(0)
    configuration = client.Configuration()
    configuration.connection_pool_maxsize = THREADS + 1
    config.load_kube_config(client_configuration=configuration)
    batch = client.BatchV1Api(client.ApiClient(configuration))
    messages = QueueClient.from_connection_string(env["AZURE_STORAGE_CONNECTION_STRING"], env["QUEUE_NAME"])
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=THREADS))
    session.headers["x-api-key"] = env["API_KEY"]
    base, namespace = env["API_BASE_URL"], env["NAMESPACE"]

    def launch() -> None:
        while True:
            message = waiting.get()
            name = json.loads(message.content)["model_container_name"]
            model_id = name.removeprefix("model-")
            session.get(f"{base}/api/external/models/{model_id}/status", timeout=30).json()
            job = copy.deepcopy(template)
            job["metadata"]["name"] = name
            batch.create_namespaced_job(namespace, job, _preload_content=False).read()
            body = {"ModelId": model_id, "Status": 1, "Message": "Model training started"}
            session.put(f"{base}/api/external/models/status", json=body, timeout=30).raise_for_status()
            batch.patch_namespaced_job(name, namespace, {"spec": {"suspend": False}}, _preload_content=False).read()
            messages.delete_message(message)
            done.release()

    for _ in range(THREADS):
        threading.Thread(target=launch, daemon=True).start()
    started = time.process_time()
    received = 0
    while received < total:
        for message in next(messages.receive_messages(messages_per_page=32, visibility_timeout=180).by_page(), ()):
            waiting.put(message)
            received += 1
    for _ in range(total):
        done.acquire()
    print(json.dumps({"cpu_seconds": time.process_time() - started}), flush=True)


if __name__ == "__main__":
    main()
