"""The settings of a service."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from evodeploy.errors import UsageError
from evodeploy.images import UPLOADED_BYTES, UPLOADED_PIXELS
from evodeploy.serving.budget import Budget
from evodeploy.specs import EngineOptions
from evodeploy.text import brief


@dataclass(frozen=True)
class Limits:
    """Limits on a request: bytes of its body, pixels of its image, seconds; and how many a replica admits at once."""

    body: int = UPLOADED_BYTES
    pixels: int = UPLOADED_PIXELS
    seconds: float = 30.0
    admitted: int = 64

    def __post_init__(self) -> None:
        """Check the limits. Raises UsageError if one is not positive."""
        for name in ("body", "pixels", "seconds", "admitted"):
            if not getattr(self, name) > 0:
                raise UsageError(f"the limit of {name} is {getattr(self, name)}, expected more than 0")


@dataclass(frozen=True)
class Tls:
    """PEM files: the server's certificate with its chain, and its private key."""

    certificate: Path
    key: Path


def tls_of(certificate: Path | None, key: Path | None) -> Tls | None:
    """Return both files, or None if there are none. Raises UsageError if only one is given."""
    if (certificate is None) != (key is None):
        raise UsageError("TLS needs a certificate and its key: give both --tls-cert and --tls-key")
    return None if certificate is None or key is None else Tls(certificate, key)


@dataclass(frozen=True)
class Settings:
    """A service of `artefact`, called `name` in its addresses, by default the name of the model.

    `engine` and `options` choose the runtime. Up to `max_batch` images run together, and none waits longer than
    `max_wait` seconds for others. With a `token`, every request except for pages and health must send it. Without one,
    it must address this machine, the `host`, or one of `allow_hosts`. `port` 0 is any free port. With a `grpc_port` the
    service also answers over gRPC. With `tls` it uses HTTPS, and TLS for gRPC.
    With a `budget`, each batch of an elastic artefact keeps as many tokens as answers in time allow.

    By default one process serves, with its metrics on the same port. More `replicas`, or `max_replicas` to which they
    may grow under load, need Ray. Ray gives each replica `gpus` GPUs, and has its metrics on `metrics_port` if it is
    started for the service.
    """

    artefact: Path
    name: str | None = None
    engine: str | None = None
    options: EngineOptions = field(default_factory=EngineOptions)
    replicas: int = 1
    max_replicas: int | None = None
    max_batch: int = 16
    max_wait: float = 0.005
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    metrics_port: int | None = None
    gpus: float = 0.0
    limits: Limits = field(default_factory=Limits)
    allow_hosts: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    budget: Budget | None = None

    def __post_init__(self) -> None:
        """Check the settings. Raises UsageError if they are invalid or contradict each other."""
        if self.replicas < 1 or (self.max_replicas is not None and self.max_replicas < self.replicas):
            raise UsageError(
                f"replicas is {self.replicas} and max_replicas {self.max_replicas}, expected 1 or more, "
                "max_replicas not below replicas"
            )
        if self.name is not None and (not re.fullmatch(r"[\w.-]{1,200}", self.name) or set(self.name) == {"."}):
            raise UsageError(f"the name is '{brief(self.name, 60)}', expected letters, digits, _, - and dots")
        if self.grpc_port and self.grpc_port == self.port:
            raise UsageError(f"HTTP and gRPC would share port {self.port}: choose another --grpc-port")
        for host in self.allow_hosts:
            if not re.fullmatch(r"[\w.:\[\]-]{1,253}", host):
                raise UsageError(f"--allow-host is '{brief(host, 60)}', expected the name or address of a host")
        if self.max_batch < 1 or self.max_wait < 0:
            raise UsageError(
                f"max_batch is {self.max_batch} and max_wait {self.max_wait}, expected 1 or more, 0 or more"
            )

    @property
    def most_replicas(self) -> int:
        """The largest number of replicas at once."""
        return self.max_replicas or self.replicas

    @property
    def url_host(self) -> str:
        """The host in the form used in addresses: IPv6 in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host
