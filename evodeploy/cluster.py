"""Ray on this machine for one command: on loopback, protected by a token, and separate from other Ray instances.

Ray started here has its own folder and random ports. It ignores RAY_ADDRESS and the files by which Ray finds other
instances. A SIGTERM sent to a whole process group, or to all processes of a service as systemd does, does not reach its
processes: the command ends them in order.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import logging
import os
import secrets
import shutil
import signal
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from evodeploy.errors import RuntimeFailedError, UsageError
from evodeploy.text import reason

ROOT = Path("/tmp")  # the same as Ray's default: the paths of its sockets may have at most 107 characters
LOOPBACK = "127.0.0.1"
ATTEMPTS = 3  # Ray allows its processes half a minute to start, which may be too short on a busy machine
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


@contextlib.contextmanager
def own_ray(name: str, variables: Mapping[str, str], **options: Any) -> Iterator[None]:
    """Start Ray on this machine with `options` of ray.init and environment `variables`, and end it after the body.

    Raises UsageError if a Ray of this `name` is already running, RuntimeFailedError if Ray does not start.
    """
    import ray

    with _sigterm_handler() as own_handler, _claimed(name) as home, _environment(home, variables):
        address = _start(home, options, own_handler)
        try:
            (home / "address").write_text(address)
            yield
        finally:
            _kill(home, scripts=True)  # nothing needs them any more, and Ray would wait a second for each
            ray.shutdown()


@contextlib.contextmanager
def found_ray(name: str, **options: Any) -> Iterator[bool]:
    """Join the Ray of this `name` that another process of this user started, for the body; yield False if none runs."""
    home = _root() / name
    if not _is_claimed(home) or not (home / "address").exists():
        yield False
        return
    address = (home / "address").read_text()
    with _environment(home, {}), joined_ray(address, **options):
        yield True


@contextlib.contextmanager
def joined_ray(address: str, **options: Any) -> Iterator[None]:
    """Join the Ray cluster at `address` for the body, and leave it running. Raises RuntimeFailedError if that fails."""
    import ray

    with _sigterm_handler() as own_handler:
        try:
            ray.init(address, **QUIET, **options)
        except Exception as error:  # Ray passes on the errors of its parts
            lacking = os.environ.get("RAY_AUTH_MODE") != "token"
            token = ": if that Ray requires a token, as `ray start` allows, set RAY_AUTH_MODE=token here too" * lacking
            raise RuntimeFailedError(f"cannot join Ray at {address}: {reason(error)}{token}") from error
        own_handler()
        try:
            yield
        finally:
            ray.shutdown()


def _start(home: Path, options: Mapping[str, Any], own_handler: Callable[[], None]) -> str:
    """Start Ray in `home` and handle SIGTERM with `own_handler` from then on; return Ray's address."""
    import ray

    for attempt in range(ATTEMPTS):
        try:
            with _blocked(signal.SIGTERM, signal.SIGHUP):
                ray.init(
                    "local", include_dashboard=False, _node_ip_address=LOOPBACK, _temp_dir=str(home / str(attempt)),
                    **QUIET, **options,
                )  # fmt: skip
                own_handler()
            return str(ray.get_runtime_context().gcs_address)
        except SystemExit:  # Ray's own response to SIGTERM, with another exit code
            _kill(home)
            raise SystemExit(128 + signal.SIGTERM) from None
        except Exception as error:  # Ray passes on the errors of its parts
            _kill(home)
            if "timed out" not in str(error) or attempt == ATTEMPTS - 1:
                raise RuntimeFailedError(f"Ray cannot start here: {reason(error)}") from error
    raise AssertionError


@contextlib.contextmanager
def _claimed(name: str) -> Iterator[Path]:
    """Claim the folder of the Ray of this `name` for this process. Folders that killed processes left are removed."""
    root = _root()
    home = root / name
    with contextlib.ExitStack() as stack:
        with _locked(root / "lock"):
            for left in [path for path in root.iterdir() if path.is_dir()]:
                with contextlib.suppress(BlockingIOError), _locked(left / "lock", wait=False):
                    shutil.rmtree(left, ignore_errors=True)
            home.mkdir(mode=0o700, exist_ok=True)
            try:
                stack.enter_context(_locked(home / "lock", wait=False))
            except BlockingIOError as error:
                raise UsageError(f"{name} runs on this machine already: stop it first") from error
        try:
            yield home
        finally:
            with _locked(root / "lock"):
                shutil.rmtree(home, ignore_errors=True)


def _is_claimed(home: Path) -> bool:
    try:
        with _locked(home / "lock", wait=False):
            return False
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True


def _root() -> Path:
    """Return the folder of this user's Ray instances, which nobody else may enter."""
    root = ROOT / f"evodeploy-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UsageError(f"{root} is not a folder of this user alone, which Ray needs: remove it")
    return root


@contextlib.contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock file `path`, at most until this process ends. Without `wait`, raises BlockingIOError if held."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(file)


@contextlib.contextmanager
def _environment(home: Path, variables: Mapping[str, str]) -> Iterator[None]:
    """Set the environment of the Ray in `home`, which its processes inherit, and restore the old one after the body."""
    token = home / "token"
    if not token.exists():
        token.touch(0o600)
        token.write_text(secrets.token_hex(32))
    changed = {
        "AUTOSCALER_METRIC_PORT": "0",  # any free port: by default it is the same for every Ray instance
        "DASHBOARD_METRIC_PORT": "0",
        "RAY_ADDRESS": None,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": None,
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # otherwise Ray uses a network address instead of 127.0.0.1
        "RAY_USAGE_STATS_ENABLED": "0",  # send no usage reports
        **variables,
    }
    before = {name: os.environ.get(name) for name in changed}
    _set(changed)
    _reread_environment(alone=True)
    try:
        yield
    finally:
        _set(before)
        _reread_environment(alone=False)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _reread_environment(alone: bool) -> None:
    """Make Ray read its variables again: it reads them when it is imported, which may have been long ago."""
    from ray._private import ray_constants

    raylet: Any = importlib.import_module("ray._raylet")
    ray_constants.ENABLE_RAY_CLUSTER = not alone
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def _blocked(*signals: signal.Signals) -> Iterator[None]:
    """Block `signals` in this thread, and permanently in the processes that it starts meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _sigterm_handler() -> Iterator[Callable[[], None]]:
    """Keep the handling of SIGTERM in the body, but raise SystemExit if it would end the process at once.

    The function that it yields installs this handler again after Ray has installed its own.
    """
    before = signal.getsignal(signal.SIGTERM)

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    def handle(handler: Any) -> None:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)

    def own() -> None:
        handle(end if before == signal.SIG_DFL else before)

    own()
    try:
        yield own
    finally:
        handle(before)


def _kill(home: Path, scripts: bool = False) -> None:
    """Kill the processes started in `home`, which their arguments name; with `scripts`, only those that run scripts."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            is_ours = any(f"{home}/".encode() in each for each in arguments) and int(entry.name) != os.getpid()
            if is_ours and (not scripts or any(each.endswith(b".py") for each in arguments[1:3])):
                os.kill(int(entry.name), signal.SIGKILL)
