from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from evodeploy.errors import BadFileError, InputError, UsageError
from evodeploy.preprocess import open_image, prepare
from evodeploy.specs import Preprocessing

STANDARD = Preprocessing()


def photo(width, height):
    rng = np.random.default_rng(width * 1000 + height)
    coarse = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def expected(image, size):
    """The evaluation transform step by step: resize the shorter side, crop the centre, normalise."""
    short = int(256 / 224 * size)
    width, height = image.size
    if width < height:
        image = image.resize((short, int(short * height / width)), Image.Resampling.BICUBIC)
    else:
        image = image.resize((int(short * width / height), short), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    top, left = round((pixels.shape[0] - size) / 2), round((pixels.shape[1] - size) / 2)
    pixels = pixels[top : top + size, left : left + size].astype(np.float64) / 255
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        pixels[..., channel] = (pixels[..., channel] - mean) / std
    return pixels.transpose(2, 0, 1)


@pytest.mark.parametrize("shape", [(500, 375), (375, 500), (224, 224), (640, 480), (33, 17), (1000, 90), (1, 1)])
@pytest.mark.parametrize("size", [224, 384, 64])
def test_pixel_for_pixel_as_the_evaluation_transform(shape, size):
    image = photo(*shape)
    got = prepare(image, size, STANDARD)
    assert got.dtype == np.float32
    assert got.shape == (3, size, size)
    np.testing.assert_allclose(got, expected(image, size), atol=1e-6)


def test_the_shorter_side_is_256_for_224_and_438_for_384():
    assert [STANDARD.resized(size) for size in (224, 384)] == [256, 438]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK", "LA"])
def test_other_modes_become_rgb(mode):
    image = photo(80, 60).convert("L").convert(mode)
    np.testing.assert_allclose(
        prepare(image, 32, STANDARD), prepare(image.convert("RGB"), 32, STANDARD), rtol=0, atol=0
    )


def test_orientation_in_the_file_is_honoured(tmp_path):
    image = photo(80, 60)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° to show it
    image.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(
        prepare(open_image(tmp_path / "turned.png"), 32, STANDARD),
        prepare(image.rotate(-90, expand=True), 32, STANDARD),
    )


def test_paths_arrays_and_pillow_images_are_one(tmp_path):
    image = photo(50, 40)
    image.save(tmp_path / "i.png")
    sources = [image, tmp_path / "i.png", str(tmp_path / "i.png"), np.asarray(image)]
    tensors = [prepare(open_image(source), 32, STANDARD) for source in sources]
    for tensor in tensors[1:]:
        np.testing.assert_array_equal(tensor, tensors[0])


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)]
)
def test_arrays_that_are_no_image_are_refused(array):
    with pytest.raises(InputError, match="expected uint8"):
        open_image(array)


def test_files_that_are_no_image_are_refused(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        open_image(tmp_path / "none.png")
    photo(50, 40).save(tmp_path / "i.png")
    data = (tmp_path / "i.png").read_bytes()
    for name, content in {"text.png": b"no image", "half.png": data[: len(data) // 2], "empty.jpg": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadFileError, match="not a readable image"):
            open_image(tmp_path / name)
