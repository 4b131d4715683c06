"""Draw in characters which tokens of an image took the slow path: `python slow_tokens.py ckpt.onnx cat.jpg`.

The artefact must have been exported with `--tokens`.
"""

import sys

import evodeploy

with evodeploy.load(sys.argv[1]) as predictor:
    kept = predictor.predict(sys.argv[2]).kept
    side = predictor.info.image_size // predictor.info.patch_size
if kept is None:
    sys.exit(f"{sys.argv[1]} does not hold them: export it with --tokens")
for number, positions in enumerate(kept, 1):
    print(f"selection {number}: {len(positions)} of {side * side}")
    for row in range(side):
        print("".join("██" if row * side + column in positions else "··" for column in range(side)))
