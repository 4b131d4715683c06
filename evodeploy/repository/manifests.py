"""Kubernetes manifests of a packaged model: built as dictionaries, and written by PyYAML."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from evodeploy.elastic import shared_ratios
from evodeploy.errors import needs
from evodeploy.repository.config import MODELS, Serving
from evodeploy.repository.model import ServedModel
from evodeploy.text import brief

Document = dict[str, Any]

KINDS = ("kserve", "kserve-adaptive", "kubernetes")
_VOLUME = "/mnt/models"
_TRITON = "YY.MM-py3"
_RESOURCES: dict[str, dict[str, str]] = {
    "gpu": {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "1"},
    "cpu": {"cpu": "2", "memory": "2Gi"},
}
_PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}
_HTTP = 8080  # where KServe expects a custom predictor
_TARGET = 100  # milliseconds
_GRACE = 45  # seconds until Kubernetes kills it; by default `serve` answers the requests that have begun within 30
_BUCKET = "Replace YOUR-BUCKET by where the folder models was uploaded to (s3://, gs://, pvc:// or https://)."
_ADAPTIVE = (
    "In place of Triton: `evodeploy serve`, which keeps fewer tokens under load to answer 99 of 100 requests in the",
    "milliseconds of --target-p99. Choose these, and the shares of tokens in --keep-ratio.",
    "Replace YOUR-REGISTRY by that of an image with evodeploy[serve,{}], YOUR-HOST by the host that requests name.",
)
_IMAGE = "Replace YOUR-REGISTRY by that of an image of Triton whose Python has evodeploy, for the ensemble."
_RELEASE = "Replace YY.MM by a Triton release; for an engine by the one with the TensorRT that built it."


def manifests(model: ServedModel, serving: Serving) -> dict[str, str]:
    """Return the text of each manifest by its kind. Raises MissingExtraError without PyYAML."""
    kubernetes = "Replace YOUR-CLAIM by a volume claim with the folder models on it."
    own = [_IMAGE] if serving.top else []
    texts = {
        "kserve": _text([_BUCKET, _RELEASE, *own], [_inference_service(model, serving)]),
        "kubernetes": _text([kubernetes, _RELEASE, *own], [_deployment(model, serving), _service(serving)]),
    }
    ratios = shared_ratios(model.info.elastic) if model.info else ()
    if ratios and model.backend == "onnxruntime":
        comments = [each.format(serving.device) for each in _ADAPTIVE]  # the extras have the names of the devices
        texts["kserve-adaptive"] = _text([*comments, _BUCKET], [_adaptive(model, serving, ratios[0], ratios[-1])])
    return texts


def _text(comments: Iterable[str], documents: list[Document]) -> str:
    with needs("package"):
        import yaml
    heading = "".join(f"# {comment}\n" for comment in comments)
    return heading + str(yaml.safe_dump_all(documents, sort_keys=False, width=100))


def _metadata(model: ServedModel, serving: Serving) -> Document:
    return {"name": serving.name, "annotations": {"made-by": brief(model.made)}}


def _resources(serving: Serving) -> Document:
    return {"requests": dict(_RESOURCES[serving.device]), "limits": dict(_RESOURCES[serving.device])}


def _image(serving: Serving) -> str:
    return f"{'YOUR-REGISTRY' if serving.top else 'nvcr.io/nvidia'}/tritonserver:{_TRITON}"


def _inference_service(model: ServedModel, serving: Serving) -> Document:
    served = {
        "modelFormat": {"name": "triton"},
        "runtime": "kserve-tritonserver",
        "runtimeVersion": _TRITON,
        "protocolVersion": "v2",
        "storageUri": f"s3://YOUR-BUCKET/{MODELS}",
        "resources": _resources(serving),
    }
    if serving.top:
        served["image"] = _image(serving)
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": _metadata(model, serving),
        "spec": {"predictor": {"model": served}},
    }


def _adaptive(model: ServedModel, serving: Serving, low: float, high: float) -> Document:
    """Describe `evodeploy serve` on the file in the repository, as a custom predictor with keep ratios `low:high`."""
    options = {
        "--name": serving.name,
        "--device": "cuda" if serving.device == "gpu" else "cpu",
        "--threads": _RESOURCES[serving.device]["cpu"],
        "--target-p99": str(_TARGET),
        "--keep-ratio": f"{low:g}:{high:g}",
        "--host": "0.0.0.0",
        "--port": str(_HTTP),
        "--allow-host": "YOUR-HOST",
    }
    container = {
        "name": "kserve-container",
        "image": "YOUR-REGISTRY/evodeploy",
        "command": ["evodeploy"],
        "args": [
            "serve",
            f"{_VOLUME}/{serving.name}/{serving.version}/{model.file_name}",
            *(word for option in options.items() for word in option),
        ],
        "env": [{"name": "STORAGE_URI", "value": f"s3://YOUR-BUCKET/{MODELS}"}],
        "ports": [{"containerPort": _HTTP, "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/v2/health/ready", "port": _HTTP}},
        "resources": _resources(serving),
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": _metadata(model, serving) | {"name": f"{serving.name}-adaptive"[:63].rstrip("-")},
        "spec": {"predictor": {"terminationGracePeriodSeconds": _GRACE, "containers": [container]}},
    }


def _deployment(model: ServedModel, serving: Serving) -> Document:
    ready = {"httpGet": {"path": "/v2/health/ready", "port": "http"}}
    container: Document = {
        "name": "triton",
        "image": _image(serving),
        "args": ["tritonserver", f"--model-repository={_VOLUME}/{MODELS}"],
        "ports": [{"name": name, "containerPort": port} for name, port in _PORTS.items()],
        "startupProbe": ready | {"periodSeconds": 5, "failureThreshold": 120},  # loading may take ten minutes
        "readinessProbe": dict(ready),
        "livenessProbe": {"httpGet": {"path": "/v2/health/live", "port": "http"}},
        "resources": _resources(serving),
        "volumeMounts": [{"name": "models", "mountPath": _VOLUME, "readOnly": True}],
    }
    volumes: list[Document] = [{"name": "models", "persistentVolumeClaim": {"claimName": "YOUR-CLAIM"}}]
    if serving.top:  # Python models pass tensors through it, and a container's default is 64 MiB
        container["volumeMounts"].append({"name": "shared-memory", "mountPath": "/dev/shm"})
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}})
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": str(_PORTS["metrics"])}
    pods = {"metadata": {"labels": {"app": serving.name}, "annotations": scraped}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(model, serving),
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": serving.name}},
            "template": pods | {"spec": {"containers": [container], "volumes": volumes}},
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
