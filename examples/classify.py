"""Name what an image shows: `python classify.py ckpt.onnx cat.jpg`."""

import sys

import evodeploy

with evodeploy.load(sys.argv[1]) as predictor:
    for label in predictor.predict(sys.argv[2]).labels:
        print(f"{label.probability:6.1%}  {label.name}")
