"""A Ray of one's own, as it is asked for and cleared away; a real one: tests/batch and tests/serving."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import types

import pytest
import ray

from evodeploy import cluster
from evodeploy.cluster import found_ray, joined_ray, own_ray
from evodeploy.errors import RuntimeFailedError, UsageError


@pytest.fixture
def started(monkeypatch, tmp_path):
    """The starts of a Ray that does nothing: options, environment and blocked signals; failing with each of `fail`."""

    class Started(list):
        fail: list[Exception]

        def init(self, address, **options):
            self.append((address, options, dict(os.environ), signal.pthread_sigmask(signal.SIG_BLOCK, [])))
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as Ray puts its own
            if self.fail:
                raise self.fail.pop(0)

    starts = Started()
    starts.fail = []
    monkeypatch.setattr(cluster, "ROOT", tmp_path)
    monkeypatch.setattr(ray, "init", starts.init)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: types.SimpleNamespace(gcs_address="127.0.0.1:77"))
    return starts


def test_it_is_alone_and_out_of_reach(started, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    before, handler = dict(os.environ), signal.getsignal(signal.SIGTERM)
    home = tmp_path / f"evodeploy-{os.getuid()}" / "one"
    with own_ray("one", {"EXTRA": "yes"}, num_cpus=2):
        assert (home / "token").stat().st_mode & 0o777 == 0o600
        assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_IGN, signal.SIG_DFL)
    ((address, options, environment, blocked),) = started
    assert address == "local"
    assert options["_node_ip_address"] == "127.0.0.1"
    assert (options["include_dashboard"], options["num_cpus"]) == (False, 2)
    assert options["_temp_dir"].startswith(str(home))
    assert "RAY_ADDRESS" not in environment
    assert "RAY_AUTH_TOKEN" not in environment
    assert (environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN_PATH"]) == ("token", str(home / "token"))
    assert environment["EXTRA"] == "yes"
    assert {signal.SIGTERM, signal.SIGHUP} <= blocked
    assert not {signal.SIGTERM, signal.SIGHUP} & signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert dict(os.environ) == before
    assert not home.exists()
    assert signal.getsignal(signal.SIGTERM) == handler


def test_sigterm_while_it_starts_is_the_end(started, tmp_path):
    started.fail = [SystemExit(signal.SIGTERM)]  # as Ray answers it
    with pytest.raises(SystemExit, match="143"), own_ray("one", {}):
        pass
    assert not (tmp_path / f"evodeploy-{os.getuid()}" / "one").exists()


def test_a_slow_start_is_tried_again_and_its_processes_ended(started, tmp_path):
    late = Exception("The current node timed out during startup.")
    started.fail = [late, late]
    left = subprocess.Popen(
        [sys.executable, "-c", "input()", f"{tmp_path}/evodeploy-{os.getuid()}/one/0/left"], stdin=subprocess.PIPE
    )
    with own_ray("one", {}):
        assert len(started) == 3
    assert left.wait(60) == -signal.SIGKILL
    assert len({options["_temp_dir"] for _, options, *_ in started}) == 3
    started.fail = [late] * 3
    with pytest.raises(RuntimeFailedError, match="cannot start here: The current node"), own_ray("one", {}):
        pass
    started.fail = [Exception("no room\nat all")]
    with pytest.raises(RuntimeFailedError, match="Ray cannot start here: no room$"), own_ray("one", {}):
        pass
    assert len(started) == 7


def test_one_of_a_name_runs_at_a_time_and_is_found_by_it(started):
    with found_ray("one") as found:
        assert not found
    with own_ray("one", {}):
        with pytest.raises(UsageError, match="one runs on this machine already: stop it first"), own_ray("one", {}):
            pass
        with own_ray("two", {}), found_ray("one", namespace="n") as found:
            assert found
            address, options, environment, _ = started[-1]
            assert (address, options["namespace"]) == ("127.0.0.1:77", "n")
            assert environment["RAY_AUTH_TOKEN_PATH"].endswith("/one/token")
    with found_ray("one") as found:
        assert not found


def test_what_a_killed_process_left_is_removed(started, tmp_path):
    root = tmp_path / f"evodeploy-{os.getuid()}"
    (root / "left" / "0").mkdir(parents=True)
    root.chmod(0o700)
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_ray("one", {}))
        stack.enter_context(own_ray("two", {}))
        assert sorted(path.name for path in root.iterdir()) == ["lock", "one", "two"]


@pytest.mark.parametrize("make", [lambda path: path.mkdir(mode=0o755), lambda path: path.symlink_to("/")])
def test_a_folder_that_others_may_enter_is_refused(started, tmp_path, make):
    make(tmp_path / f"evodeploy-{os.getuid()}")
    with pytest.raises(UsageError, match="is not a folder of this user alone"), own_ray("one", {}):
        pass
    assert started == []


def test_a_ray_that_cannot_be_joined_may_ask_for_a_token(started, monkeypatch):
    started.fail = [ConnectionError("Failed to connect")] * 2
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(RuntimeFailedError, match="cannot join Ray at 1.2.3.4:5: Failed to connect: .* RAY_AUTH_MODE"):
        joined_ray("1.2.3.4:5").__enter__()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(RuntimeFailedError, match="Failed to connect$"):
        joined_ray("1.2.3.4:5").__enter__()
