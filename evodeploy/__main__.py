"""`python -m evodeploy`."""

from evodeploy.cli import app

app()
