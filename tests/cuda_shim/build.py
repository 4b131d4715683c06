"""Real pycuda and the shim it runs on, from source: pycuda once (half a minute), the shim for every test session.

pycuda's C++ files are compiled here without optimisation, as many at a time as there are cores: a fifth of the time
that its own setup takes. Whatever it calls of the driver the shim must export, so each name gets a function that
reports itself when called, unless driver.c defines it.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PYCUDA = "pycuda==2026.1"
HEADERS = ("nvidia-cuda-runtime-cu12==12.9.79", "nvidia-cuda-profiler-api-cu12==12.9.79")  # cuda.h, cudaProfiler.h
DEFINES = (
    "PYGPU_PACKAGE=pycuda", "PYGPU_PYCUDA=1", "boost=pycudaboost", "BOOST_ALL_NO_LIB=1", "BOOST_PYTHON_SOURCE=1",
    "BOOST_THREAD_BUILD_DLL=1", "BOOST_THREAD_DONT_USE_CHRONO=1", "BOOST_MULTI_INDEX_DISABLE_SERIALIZATION=1",
)  # fmt: skip
EXTENSION = f"_driver{sysconfig.get_config_var('EXT_SUFFIX')}"
HERE = Path(__file__).parent


def build_pycuda(cache: Path) -> Path:
    """The folder to import pycuda from, made below `cache` unless it is there."""
    folder = cache / f"{PYCUDA.replace('==', '-')}-{sys.implementation.cache_tag}"
    if not folder.exists():
        _build_pycuda(folder)
    return folder


def build_shim(pycuda: Path, folder: Path) -> None:
    """Put libcuda.so.1 into `folder`."""
    sources = (HERE / "driver.c", pycuda / "calls.c")
    warnings = ("-Wall", "-Wextra", "-Werror")
    options = ("-shared", "-fPIC", "-O1", *warnings, f"-I{pycuda / 'include'}", "-Wl,-soname,libcuda.so.1")
    _run("cc", *options, *sources, "-lpthread", "-ldl", "-o", folder / "libcuda.so.1")


def build_for_driver(sources: Path, folder: Path) -> Path:
    """The folder to import pycuda from, made in `folder` for this machine's driver.

    `sources` holds pycuda's archive, and the wheels that bring CUDA's headers.
    """
    _unpack_headers(sources, folder / "include")
    source = _unpack_source(sources, folder)
    shutil.copytree(source / "pycuda", folder / "built" / "pycuda")
    objects = _compile(source, folder / "include", folder)
    _run("g++", "-shared", *objects, _driver_library(), "-o", folder / "built" / "pycuda" / EXTENSION)
    return folder / "built"


def _driver_library() -> Path:
    """The file of the driver that this process loads."""
    ctypes.CDLL("libcuda.so.1")
    lines = Path("/proc/self/maps").read_text().splitlines()
    return Path(next(line.split(maxsplit=5)[5] for line in lines if "/libcuda.so" in line))


def _build_pycuda(folder: Path) -> None:
    draft = folder.with_name(f"{folder.name}.{os.getpid()}")
    downloads = draft / "downloads"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", downloads]
    _run(*pip, *HEADERS)
    _run(*pip, "--no-build-isolation", "--no-binary", "pycuda", PYCUDA)
    _unpack_headers(downloads, draft / "include")
    source = _unpack_source(downloads, downloads)
    objects = _compile(source, draft / "include", downloads)
    output = subprocess.run(["nm", "-u", *map(str, objects)], check=True, capture_output=True, text=True).stdout
    weak = 'int __attribute__((weak)) {0}(void) {{ return shim_missing("{0}"); }}'
    calls = [weak.format(name) for name in sorted(set(re.findall(r"\bU (cu[A-Z]\w*)", output)))]
    (draft / "calls.c").write_text("\n".join(["int shim_missing(const char *);", *calls, ""]))
    build_shim(draft, draft)
    shutil.copytree(source / "pycuda", draft / "pycuda")
    _run("g++", "-shared", *objects, draft / "libcuda.so.1", "-o", draft / "pycuda" / EXTENSION)
    shutil.rmtree(downloads)
    draft.rename(folder)


def _unpack_source(archives: Path, folder: Path) -> Path:
    with tarfile.open(next(archives.rglob("pycuda-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.glob("pycuda-*") if path.is_dir())


def _unpack_headers(wheels: Path, folder: Path) -> None:
    for wheel in wheels.rglob("nvidia_cuda_*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if name.endswith((".h", ".hpp")):
                    target = folder / name.split("/include/", 1)[1]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(archive.read(name))


def _compile(source: Path, headers: Path, folder: Path) -> list[Path]:
    import numpy as np

    boost = source / "bpl-subset/bpl_subset"
    (boost / "pycudaboost").symlink_to("boost")
    files = [source / "src" / name for name in ("cpp/cuda.cpp", "cpp/bitlog.cpp", "wrapper/wrap_cudadrv.cpp")]
    files += [source / "src/wrapper/mempool.cpp", *boost.glob("libs/python/src/**/*.cpp")]
    files += [*boost.glob("libs/smart_ptr/src/*.cpp"), *boost.glob("libs/system/src/*.cpp")]
    files += [boost / "libs/thread/src" / name for name in ("tss_null.cpp", "pthread/thread.cpp", "pthread/once.cpp")]
    files.sort(key=lambda file: file.stat().st_size, reverse=True)  # the long ones first, so that none is the last
    includes = [source / "src/cpp", boost, headers, np.get_include(), sysconfig.get_path("include")]
    options = ["-w", "-O0", "-fPIC", *(f"-D{name}" for name in DEFINES), *(f"-I{folder}" for folder in includes)]
    objects = [folder / f"{number}.o" for number in range(len(files))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda file, made: _run("g++", *options, "-c", file, "-o", made), files, objects))
    return objects


def _run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True)


if __name__ == "__main__":
    print(build_pycuda(Path(sys.argv[1]).resolve()))
