"""Write the 454 held-out digits as PNG files, in a folder for each class: `python sample/pictures.py DIR`.

With `--training`, write the other 1343, for example to calibrate INT8.
"""

from __future__ import annotations

import sys
from pathlib import Path

from digits import write_held_out, write_training

if __name__ == "__main__":
    training = "--training" in sys.argv
    folders = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    if len(folders) != 1 or len(sys.argv) != 2 + training:
        sys.exit(__doc__)
    count = (write_training if training else write_held_out)(Path(folders[0]))
    print(f"{folders[0]}  {count} pictures")
