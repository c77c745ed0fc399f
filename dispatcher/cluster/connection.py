"""The way to the API server, and the credentials for it: the only importer of kubernetes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client
from kubernetes import config as _config
from kubernetes.config.config_exception import ConfigException

from dispatcher.cluster.errors import ClusterForbidden
from training_common.keep_alive import SOCKET_OPTIONS
from training_common.redaction import redact
from training_common.text import one_line

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

config: Any = _config  # its functions are not annotated


def connect(pool_size: int) -> tuple[Any, str]:
    """The client, and the namespace that the pod or the kubeconfig's context names."""
    configuration = client.Configuration()
    configuration.connection_pool_maxsize = pool_size
    configuration.socket_options = SOCKET_OPTIONS
    namespace = "default"
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ:
            config.load_incluster_config(client_configuration=configuration)
            namespace = NAMESPACE_FILE.read_text().strip()
        else:
            # Named, because the library reads the variable once, when it is imported; None is its own default.
            file = os.environ.get("KUBECONFIG")
            config.load_kube_config(file, client_configuration=configuration)
            _, context = config.list_kube_config_contexts(file)
            namespace = (context.get("context") or {}).get("namespace") or namespace
    except (
        ConfigException,
        OSError,
        yaml.YAMLError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        # The library does not check the file's shape: a list, a string or bytes raise whatever Python raises then.
        raise ClusterForbidden(
            f"No way to a Kubernetes API server: {why(error)}; run in a pod, or set KUBECONFIG to a kubeconfig file"
        ) from None
    return client.ApiClient(configuration), namespace


def why(error: Exception) -> str:
    """An error of a library's, for a sentence of ours: one line, without secrets."""
    return redact(one_line(str(error)))[:300]
