"""The 454 held-out digits as PNG files, a folder for each class: `python sample/pictures.py DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

from digits import write_held_out

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    count = write_held_out(Path(sys.argv[1]))
    print(f"{sys.argv[1]}  {count} pictures")
