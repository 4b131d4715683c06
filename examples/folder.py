"""Count what the images below a folder show: `python folder.py ckpt.onnx photographs/`."""

import sys
from collections import Counter
from pathlib import Path

import evodeploy

paths = sorted(path for path in Path(sys.argv[2]).rglob("*") if path.is_file())
counts: Counter[str] = Counter()
with evodeploy.load(sys.argv[1]) as predictor:
    for answer in predictor.stream(paths):
        if isinstance(answer, evodeploy.Failure):
            print(f"left out: {answer.error}", file=sys.stderr)
        else:
            counts[answer.label.name] += 1
for name, count in counts.most_common():
    print(f"{count:6}  {name}")
