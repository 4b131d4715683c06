"""From a timm module to predictions and their times: `python from_timm.py deit_small_patch16_224 cat.jpg dog.jpg`.

Every token is kept, as in the module. With `keep_ratio=0.7` in `export` it is faster and less accurate.
"""

import sys

import timm

import evodeploy

module = timm.create_model(sys.argv[1], pretrained=True)
exported = evodeploy.export(module, f"{sys.argv[1]}.onnx")
print(exported)
with evodeploy.load(exported.path) as predictor:
    for path, found in zip(sys.argv[2:], predictor.predict(sys.argv[2:]), strict=True):
        print(f"{path}: {found.label.name}, {found.timing.inference * 1e3:.1f} ms for {found.timing.batch} images")
