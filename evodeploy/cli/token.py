"""The bearer token of a service, from a file or from the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

VARIABLE = "EVODEPLOY_TOKEN"
LARGEST = 4096  # bytes

File = Annotated[
    Path | None, typer.Option("--token-file", help=f"A file with the service's bearer token; else ${VARIABLE}, if set.")
]


def read(file: Path | None) -> str | None:
    """Return the token, or None if there is none. Raises UsageError if it cannot be sent in a header."""
    from evodeploy.errors import UsageError
    from evodeploy.files import open_regular

    if file is None:
        source, token = f"${VARIABLE}", os.environ.get(VARIABLE, "")
        if not token:
            return None
    else:
        with open_regular(file, "a bearer token", LARGEST) as opened:
            source, token = str(file), opened.read().decode(errors="replace").strip()
    if not token:
        raise UsageError(f"{source} is empty, expected a bearer token")
    if not re.fullmatch("[!-~]+", token):  # the characters that a header can hold
        raise UsageError(
            f"the token in {source} has spaces, line breaks or characters beyond ASCII: expected ASCII without spaces"
        )
    return token
