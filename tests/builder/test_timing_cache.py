"""The file of timings, with a configuration that keeps them as TensorRT's does: a set that can be combined."""

from __future__ import annotations

import multiprocessing
import time

import pytest

from evodeploy.builder.timing_cache import shared_timings
from evodeploy.errors import UsageError


class Cache:
    def __init__(self, content: bytes) -> None:
        self.gpu, _, kept = content.partition(b"\n") if content else (b"here", b"", b"")
        self.kernels = set(kept.split())

    def combine(self, other, ignore_mismatch):
        self.kernels |= other.kernels
        return True

    def serialize(self):
        return memoryview(self.gpu + b"\n" + b" ".join(sorted(self.kernels)))


class Config:
    def create_timing_cache(self, content):
        return Cache(content)

    def set_timing_cache(self, cache, ignore_mismatch):
        self.cache = cache
        return cache.gpu == b"here" or ignore_mismatch

    def get_timing_cache(self):
        return self.cache


def build(path, *kernels):
    config = Config()
    with shared_timings(config, path):
        hits = config.cache.kernels & set(kernels)
        config.cache.kernels |= set(kernels)
        time.sleep(0.05)  # while others build
    return hits


def test_a_second_build_finds_what_the_first_measured(tmp_path, logged):
    path = tmp_path / "timings"
    assert build(path, b"gemm", b"conv") == set()
    assert "bytes of new timings" in logged[-1]
    assert build(path, b"gemm", b"conv") == {b"gemm", b"conv"}
    assert logged[-1] == f"timing cache {path}: everything was measured before"


def test_builds_at_the_same_time_lose_nothing(tmp_path):
    path = tmp_path / "timings"
    fork = multiprocessing.get_context("fork")
    builds = [fork.Process(target=build, args=(path, b"k%d" % number)) for number in range(8)]
    for process in builds:
        process.start()
    for process in builds:
        process.join()
    assert Cache(path.read_bytes()).kernels == {b"k%d" % number for number in range(8)}


def test_a_link_leads_to_the_file_that_is_shared(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "timings")
    assert build(tmp_path / "link", b"gemm") == set()
    assert build(tmp_path / "timings", b"gemm") == {b"gemm"}
    assert (tmp_path / "link").is_symlink()


def test_timings_of_another_gpu_are_refused_and_kept(tmp_path):
    path = tmp_path / "timings"
    path.write_bytes(b"elsewhere\ngemm")
    with pytest.raises(UsageError, match="another TensorRT or GPU: name another file with --timing-cache"):
        build(path, b"conv")
    assert path.read_bytes() == b"elsewhere\ngemm"


def test_a_file_of_something_else_is_refused_and_kept(tmp_path, monkeypatch):
    path = tmp_path / "notes.txt"
    path.write_bytes(b"what I wrote")
    # As TensorRT does, which makes an empty cache of what it cannot read.
    monkeypatch.setattr(Config, "create_timing_cache", lambda self, content: Cache(b""))
    with pytest.raises(UsageError, match="holds no timings that TensorRT can read: name another file"):
        build(path, b"conv")
    assert path.read_bytes() == b"what I wrote"


def test_a_build_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "timings"
    build(path, b"gemm")
    before = path.read_bytes()
    config = Config()
    with pytest.raises(RuntimeError), shared_timings(config, path):
        config.cache.kernels.add(b"half")
        raise RuntimeError
    assert path.read_bytes() == before


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        build(tmp_path / "no" / "timings")
    assert list(tmp_path.iterdir()) == []


def test_without_a_file_nothing_is_asked_of_the_configuration():
    with shared_timings(object(), None):
        pass
