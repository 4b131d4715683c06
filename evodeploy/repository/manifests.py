"""Kubernetes manifests of a packaged model: built as dictionaries, written by PyYAML."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from evodeploy.errors import needs
from evodeploy.repository.config import Serving
from evodeploy.repository.model import ServedModel
from evodeploy.text import brief

Document = dict[str, Any]

MODELS = "models"  # the folder of the repository
_VOLUME = "/mnt/models"
_TRITON = "YY.MM-py3"
_RESOURCES: dict[str, dict[str, str]] = {
    "gpu": {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"},
    "cpu": {"cpu": "2", "memory": "2Gi"},
}
_PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}
_RELEASE = "Replace YY.MM by a Triton release; for an engine by the one with the TensorRT that built it."


def manifests(model: ServedModel, serving: Serving) -> dict[str, str]:
    """The text of each manifest by its kind; raises MissingExtraError without PyYAML."""
    kserve = "Replace YOUR-BUCKET by where the folder models was uploaded to (s3://, gs://, pvc:// or https://)."
    kubernetes = "Replace YOUR-CLAIM by a volume claim with the folder models on it."
    return {
        "kserve": _text([kserve, _RELEASE], [_inference_service(model, serving)]),
        "kubernetes": _text([kubernetes, _RELEASE], [_deployment(model, serving), _service(serving)]),
    }


def _text(comments: Iterable[str], documents: list[Document]) -> str:
    with needs("package"):
        import yaml
    heading = "".join(f"# {comment}\n" for comment in comments)
    return heading + str(yaml.safe_dump_all(documents, sort_keys=False, width=100))


def _metadata(model: ServedModel, serving: Serving) -> Document:
    return {"name": serving.name, "annotations": {"made-by": brief(model.made)}}


def _resources(serving: Serving) -> Document:
    return {"requests": dict(_RESOURCES[serving.device]), "limits": dict(_RESOURCES[serving.device])}


def _inference_service(model: ServedModel, serving: Serving) -> Document:
    served = {
        "modelFormat": {"name": "triton"},
        "runtime": "kserve-tritonserver",
        "runtimeVersion": _TRITON,
        "protocolVersion": "v2",
        "storageUri": f"s3://YOUR-BUCKET/{MODELS}",
        "resources": _resources(serving),
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": _metadata(model, serving),
        "spec": {"predictor": {"model": served}},
    }


def _deployment(model: ServedModel, serving: Serving) -> Document:
    ready = {"httpGet": {"path": "/v2/health/ready", "port": "http"}}
    container = {
        "name": "triton",
        "image": f"nvcr.io/nvidia/tritonserver:{_TRITON}",
        "args": ["tritonserver", f"--model-repository={_VOLUME}/{MODELS}"],
        "ports": [{"name": name, "containerPort": port} for name, port in _PORTS.items()],
        "startupProbe": ready | {"periodSeconds": 5, "failureThreshold": 120},  # loading: ten minutes at most
        "readinessProbe": dict(ready),
        "livenessProbe": {"httpGet": {"path": "/v2/health/live", "port": "http"}},
        "resources": _resources(serving),
        "volumeMounts": [{"name": "models", "mountPath": _VOLUME, "readOnly": True}],
    }
    volume = {"name": "models", "persistentVolumeClaim": {"claimName": "YOUR-CLAIM"}}
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": str(_PORTS["metrics"])}
    pods = {"metadata": {"labels": {"app": serving.name}, "annotations": scraped}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(model, serving),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": serving.name}},
            "template": pods | {"spec": {"containers": [container], "volumes": [volume]}},
        },
    }


def _service(serving: Serving) -> Document:
    ports = [{"name": name, "port": port, "targetPort": name} for name, port in _PORTS.items()]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": serving.name},
        "spec": {"selector": {"app": serving.name}, "ports": ports},
    }
