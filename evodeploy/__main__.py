"""The `evodeploy` command, which also runs as `python -m evodeploy`."""

import sys


def main() -> None:
    """Run the command line and exit through `sys.exit`."""
    try:
        from evodeploy.cli import app
    except KeyboardInterrupt:  # before the command line itself can catch it
        sys.exit(130)
    app()


if __name__ == "__main__":
    main()
