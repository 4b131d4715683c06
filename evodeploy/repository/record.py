"""The result of packaging."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Packaged:
    """The written files: the model's `folder` in the repository, with its `version`, and the `manifests`.

    Triton's `backend` runs the model on `device`, in batches of up to `max_batch`. If it joins no requests, that is 0,
    and `batch` is the only batch size, if it is fixed. `ensemble` is the model that takes image files, if there is one.
    """

    folder: Path
    version: int
    manifests: tuple[Path, ...]
    backend: str
    device: str
    max_batch: int
    batch: int | None
    ensemble: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, as `evodeploy package --json` prints them."""
        return {
            "folder": str(self.folder),
            "version": self.version,
            "manifests": [str(path) for path in self.manifests],
            "backend": self.backend,
            "device": self.device,
            "max_batch": self.max_batch,
            "ensemble": self.ensemble,
        }

    def __str__(self) -> str:
        batches = f"up to {self.max_batch}" if self.max_batch else f"of {self.batch} only" if self.batch else "as asked"
        lines = [f"{self.folder}  {self.backend} on {self.device}, version {self.version}, batches {batches}"]
        if self.ensemble:
            lines.append(
                f"{self.folder.with_name(self.ensemble)}  image files to labels; needs evodeploy in Triton's Python"
            )
        lines += [str(path) for path in self.manifests]
        return "\n".join([*lines, f"next: tritonserver --model-repository={self.folder.parent}"])
