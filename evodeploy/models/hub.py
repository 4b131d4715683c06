"""Checkpoints of the Hugging Face Hub by name: `hf://OWNER/NAME`, or `hf://OWNER/NAME@REVISION`.

The library huggingface_hub fetches them into its own cache and reads its own settings: HF_HOME, HF_TOKEN,
HF_HUB_OFFLINE, HF_ENDPOINT.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from evodeploy.errors import BadFileError, UnavailableError, UsageError, needs
from evodeploy.schema import read_json_file
from evodeploy.text import brief, reason

SCHEME = "hf://"
_PART = r"(?!\.+(?:/|$))[\w.-]+"  # part of a revision, which becomes a path in the cache: `..` is excluded
_ID = re.compile(rf"hf://([\w.-]+/[\w.-]+?)(?:@({_PART}(?:/{_PART})*))?")
CHECKPOINTS = ("model.safetensors", "pytorch_model.bin")  # the file names that a config.json next to them describes
TIMM_KEY = "architecture"  # a key of timm's config.json, which also describes how images are prepared
_SNAPSHOT = re.compile(r".*/models--([\w.-]+)--([\w.-]+)/snapshots/([0-9a-f]{40})/[^/]+")

_log = logging.getLogger(__name__)


def local(source: str | os.PathLike[str]) -> Path:
    """Return `source` as a path. A name of the hub is fetched first, together with the files that describe it.

    Raises UsageError if the name is malformed or the hub does not have it, UnavailableError if the hub cannot be
    reached or refuses access, BadFileError if it has no checkpoint under that name.
    """
    text = os.fspath(source)
    if not text.startswith(SCHEME):
        return Path(text)
    named = _ID.fullmatch(text)
    if named is None:
        raise UsageError(
            f"{brief(text)} is not a name on the hub: expected hf://OWNER/NAME or hf://OWNER/NAME@REVISION"
        )
    repository, revision = named[1], named[2]
    with needs("hub"):
        import huggingface_hub  # noqa: F401
    config = _fetched(repository, revision, "config.json")
    pinned = _SNAPSHOT.fullmatch(os.fspath(config)) if config else None
    commit = pinned[3] if pinned else revision  # all files come from one commit, even if the hub changes meanwhile
    found = (_fetched(repository, commit, name) for name in CHECKPOINTS)
    checkpoint = next((path for path in found if path is not None), None)
    if checkpoint is None:
        raise BadFileError(f"{text} has neither {' nor '.join(CHECKPOINTS)}: expected a checkpoint in one file")
    if config is None or TIMM_KEY not in read_json_file(config, "a hub's description of the checkpoint"):
        _fetched(repository, commit, "preprocessor_config.json")
    if revision is None:
        _log.warning("%s is used as it is now: pin this revision as %s", text, origin(checkpoint) or text)
    return checkpoint


def origin(path: Path) -> str | None:
    """Return the name and commit of a file in the hub's cache, in the form that `local` takes; None for other files."""
    place = _SNAPSHOT.fullmatch(os.fspath(path))
    return f"{SCHEME}{place[1]}/{place[2]}@{place[3]}" if place else None


def _fetched(repository: str, revision: str | None, name: str) -> Path | None:
    """Return the path of the file `name` in the cache, or None if the hub does not have it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    source = f"{SCHEME}{repository}" + (f"@{revision}" if revision else "")
    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except GatedRepoError as error:
        raise UnavailableError(f"{source} is gated: accept its terms on the hub and set HF_TOKEN") from error
    except RevisionNotFoundError as error:
        raise UsageError(f"{source}: the hub has no such revision") from error
    except RepositoryNotFoundError as error:
        raise UsageError(f"{source}: the hub has no such model, or it is private and HF_TOKEN is not set") from error
    except HFValidationError as error:
        raise UsageError(f"{source} is not a name on the hub: {reason(error)}") from error
    except LocalEntryNotFoundError as error:  # offline, no network, or the hub does not answer
        why = f" ({reason(error.__cause__)})" if error.__cause__ else ""
        raise UnavailableError(
            f"{source}: {name} is not in the cache and the hub cannot be reached{why}: fetch it once "
            "while the hub can be reached"
        ) from error
    except EntryNotFoundError:
        return None
    except Exception as error:  # all other errors of the library, and of its HTTP library
        raise UnavailableError(f"{source}: {name} cannot be fetched: {reason(error)}") from error
