"""What timm and transformers make of pictures, pinned in preprocessing.npz: run this to make it again.

    python -m venv there && there/bin/pip install torch torchvision timm transformers pillow==13.0.0
    there/bin/python tests/golden/preprocessing.py tests/golden/preprocessing.npz
    there/bin/pip install pillow==11.3.0
    there/bin/python tests/golden/preprocessing.py tests/golden/preprocessing.npz

Pillow 13 resizes rows and columns in another order than earlier ones where an image shrinks, which moves some levels by
one. So a second run with another Pillow adds its checksums where they differ.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

# Odd, tall, wide and tiny ones, and those with a side of one pixel: width, height.
PICTURES = (
    (97, 61),
    (61, 97),
    (33, 17),
    (40, 160),
    (300, 16),
    (1, 1),
    (1, 7),
    (9, 1),
    (131, 129),
    (64, 64),
    (375, 500),
)
FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")
MEAN, STD = [0.485, 0.5, 0.4], [0.229, 0.25, 0.2]


def picture(number: int) -> Image.Image:
    """A picture of noise, the same on every machine."""
    width, height = PICTURES[number]
    raw = np.random.PCG64(number).random_raw(width * height)
    channels = [(raw >> np.uint64(shift)).astype(np.uint8) for shift in (8, 24, 40)]
    return Image.fromarray(np.stack(channels, -1).reshape(height, width, 3))


def checksum(pixels: np.ndarray) -> str:
    """Of uint8 pixels (size, size, 3)."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]


def _cases():
    """Each source's own configuration, as it lies next to a checkpoint, the picture and the image size."""
    for number, (mode, share, how) in itertools.product(
        range(len(PICTURES)), itertools.product(("center", "squash"), (0.875, 0.9, 0.95, 1.0), FILTERS)
    ):
        config = {"mean": MEAN, "std": STD, "crop_pct": share, "crop_mode": mode, "interpolation": how}
        yield "timm", config, number, 40
    for number, share, mode in itertools.product((0, 1, 8, 10), (0.875, 0.95), ("center", "squash")):
        yield "timm", {"crop_pct": share, "crop_mode": mode, "interpolation": "bicubic"}, number, 224
    sizes = (
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 40, "width": 40}},
        {"image_processor_type": "DeiTImageProcessor", "size": 46, "crop_size": 40, "do_center_crop": True},
        {"image_processor_type": "BitImageProcessor", "size": 45, "crop_size": 40, "do_center_crop": True},
        {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 47},
         "crop_size": {"height": 40, "width": 40}, "do_center_crop": True},
    )  # fmt: skip
    for number, size, resample in itertools.product(range(len(PICTURES)), sizes, range(4)):
        config = {"image_mean": MEAN, "image_std": STD, "resample": resample, "do_resize": True, **size}
        yield "hugging-face", config, number, 40


def _by_timm(config: dict, number: int, size: int, pixels: bool) -> np.ndarray:
    from timm.data import create_transform, resolve_data_config

    values = resolve_data_config({"img_size": size}, pretrained_cfg=config)
    if pixels:
        values |= {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    made = create_transform(**values, is_training=False)(picture(number)).numpy()
    return np.rint(made * 255).astype(np.uint8).transpose(1, 2, 0) if pixels else made


def _by_hugging_face(config: dict, number: int, size: int, pixels: bool) -> np.ndarray:
    import transformers.models.bit.image_processing_pil_bit as bit
    import transformers.models.deit.image_processing_pil_deit as deit
    import transformers.models.vit.image_processing_pil_vit as vit

    kind = config["image_processor_type"]
    maker = {"ViT": vit.ViTImageProcessorPil, "DeiT": deit.DeiTImageProcessorPil, "Bit": bit.BitImageProcessorPil}
    values = {key: value for key, value in config.items() if key != "image_processor_type"}
    if pixels:
        values |= {"do_rescale": False, "do_normalize": False}
    processor = maker[kind.removesuffix("ImageProcessor")](**values)
    made = np.asarray(processor(picture(number), return_tensors="np")["pixel_values"][0])
    return made.astype(np.uint8).transpose(1, 2, 0) if pixels else made


def main(path: Path) -> None:
    """Write checksums of all cases, and whole tensors of a few; keep the checksums that `path` already has."""
    known = json.loads(str(np.load(path)["cases"])) if path.exists() else []
    makers = {"timm": _by_timm, "hugging-face": _by_hugging_face}
    cases, tensors = [], {}
    for at, (source, config, number, size) in enumerate(_cases()):
        found = {checksum(makers[source](config, number, size, pixels=True))}
        found |= set(known[at]["checksums"]) if known else set()
        cases.append({"source": source, "config": config, "picture": number, "size": size, "checksums": sorted(found)})
        if at % 97 == 0 and size == 40:
            tensors[f"tensor{at}"] = makers[source](config, number, size, pixels=False).astype(np.float32)
    np.savez_compressed(path, cases=json.dumps(cases), **tensors)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
