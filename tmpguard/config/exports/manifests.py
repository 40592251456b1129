"""The deployment of the functions by other platforms: files of Compose, Kubernetes and Knative."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from .deployment import PORT, USER, Deployment
from .dockerfile import tmpfs

_Mapping = dict[str, Any]

#: The name of an application's label that its parts are found by.
_LABEL: Final = "app.kubernetes.io/name"

_SECURITY: Final = {
    "readOnlyRootFilesystem": True,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def compose(deployments: Sequence[Deployment], dockerfiles: Sequence[str | None], base: str) -> str:
    """A file of Compose with a service for each function, to be written to the directory ``base``.

    ``dockerfiles`` are the names of the functions' Dockerfiles in that directory.
    """
    services = {}
    for number, (one, dockerfile) in enumerate(zip(deployments, dockerfiles, strict=True)):
        service: _Mapping = {"image": one.image}
        if dockerfile is not None:
            service["build"] = {
                "context": os.path.relpath(one.context, base),
                "dockerfile": os.path.relpath(os.path.join(base, dockerfile), one.context),
            }
        service |= {
            "read_only": True,
            "tmpfs": tmpfs(one),
            "user": f"{USER}:{USER}",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges:true"],
            "ports": [f"127.0.0.1:{PORT + number}:{PORT}"],
        }
        if one.memory is not None:
            service["mem_limit"] = f"{one.memory}m"
        services[one.name] = service
    return _yaml([{"services": services}], "compose", deployments)


def kubernetes(deployments: Sequence[Deployment]) -> str:
    """A Deployment and a Service for each function."""
    documents: list[_Mapping] = []
    for one in deployments:
        labels = {_LABEL: one.name}
        pod = {"automountServiceAccountToken": False, **_pod(one)}
        spec = {
            "replicas": one.one.instances or 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }
        metadata = {"name": one.name, "labels": labels}
        ports = [{"name": "http", "port": 80, "targetPort": PORT}]
        documents += [
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec},
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {"selector": labels, "ports": ports},
            },
        ]
    return _yaml(documents, "kubernetes", deployments)


def knative(deployments: Sequence[Deployment]) -> str:
    """A Service of Knative for each function.

    It starts containers on demand, and limits the requests that each of them runs at once.
    """
    documents = []
    for one in deployments:
        spec: _Mapping = {}
        if one.concurrency is not None:
            spec["containerConcurrency"] = one.concurrency
        if one.one.timeout:
            spec["timeoutSeconds"] = max(1, round(one.one.timeout))
        spec |= _pod(one)
        template: _Mapping = {"spec": spec}
        annotations = _scaling(one)
        if annotations:
            template = {"metadata": {"annotations": annotations}, **template}
        documents.append(
            {
                "apiVersion": "serving.knative.dev/v1",
                "kind": "Service",
                "metadata": {"name": one.name},
                "spec": {"template": template},
            }
        )
    return _yaml(documents, "knative", deployments)


def _scaling(one: Deployment) -> dict[str, str]:
    found = {}
    if one.one.instances is not None:
        found["autoscaling.knative.dev/max-scale"] = str(one.one.instances)
    if one.one.cooldown:
        # Knative allows an hour at most.
        found["autoscaling.knative.dev/scale-to-zero-pod-retention-period"] = (
            f"{min(one.one.cooldown, 3600):g}s"
        )
    return found


def _pod(one: Deployment) -> _Mapping:
    """The container, with memory of the storage's size at ``/tmp``."""
    mounts: list[_Mapping] = [{"name": "tmp", "mountPath": "/tmp"}]
    volumes: list[_Mapping] = [
        {"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": f"{one.size}Mi"}}
    ]
    if not one.platform.shared_memory:
        # The platform has no shared memory: what needs it fails here, too.
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm", "readOnly": True})
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    container: _Mapping = {
        "name": "function",
        "image": one.image,
        "ports": [{"containerPort": PORT}],
        "securityContext": _SECURITY,
        "volumeMounts": mounts,
    }
    if one.memory is not None:
        memory = f"{one.memory}Mi"
        container["resources"] = {"requests": {"memory": memory}, "limits": {"memory": memory}}
    return {"containers": [container], "volumes": volumes}


def _yaml(documents: Sequence[_Mapping], target: str, deployments: Sequence[Deployment]) -> str:
    import yaml

    class Plain(yaml.SafeDumper):  # type: ignore[misc]
        """Writes equal values out instead of naming them."""

        def ignore_aliases(self, data: object) -> bool:
            return True

    files = dict.fromkeys(os.path.basename(one.one.node.file.path) for one in deployments)
    head = [f"# Written by tmpguard export {target} from {', '.join(files)}."]
    for one in deployments:
        if one.memory is None:
            head.append(f"# {one.name}: what is in /tmp ({one.size} MB at most) is part of its memory.")
        else:
            head.append(f"# {one.name}: {one.one.memory} MB of memory and {one.size} MB in /tmp.")
    text = yaml.dump_all(documents, Dumper=Plain, sort_keys=False, default_flow_style=False, width=110)
    return "\n".join(head) + f"\n{text}"
