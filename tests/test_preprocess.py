from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image, ImageOps

from evodeploy.errors import BadFileError, InputError, UsageError
from evodeploy.images import open_image
from evodeploy.models.preprocessing import resolved, stated_by_hugging_face, stated_by_timm
from evodeploy.preprocess import HELD, as_input, cropped, difference, normalised, pictures, prepare, prepare_upload
from evodeploy.specs import ModelInfo, Preprocessing

_spec = importlib.util.spec_from_file_location("recipe", Path(__file__).parent / "golden" / "preprocessing.py")
recipe = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recipe)

STANDARD = Preprocessing()
INFO = ModelInfo("fake", 32, 4, 3, "stage", (0.5,))


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
    got = prepare(image, dataclasses.replace(INFO, image_size=size))
    assert got.dtype == np.float32
    assert got.shape == (3, size, size)
    np.testing.assert_allclose(got, expected(image, size), atol=1e-6)


def test_the_shorter_side_is_256_for_224_and_438_for_384():
    assert [STANDARD.resized(size) for size in (224, 384)] == [256, 438]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK", "LA"])
def test_other_modes_become_rgb(mode):
    image = photo(80, 60).convert("L").convert(mode)
    np.testing.assert_allclose(prepare(image, INFO), prepare(image.convert("RGB"), INFO), rtol=0, atol=0)


def test_orientation_in_the_file_is_honoured(tmp_path):
    image = photo(80, 60)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° to show it
    image.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(
        prepare(open_image(tmp_path / "turned.png"), INFO), prepare(image.rotate(-90, expand=True), INFO)
    )


@pytest.mark.parametrize("orientation", range(1, 10))
def test_every_orientation_is_turned_as_pillow_does(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    photo(80, 60).save(file, "PNG", exif=exif)
    image = Image.open(file)
    np.testing.assert_array_equal(prepare(image, INFO), prepare(ImageOps.exif_transpose(image), INFO))


@pytest.mark.parametrize("exif", [b"Exif\0\0XX*\0\x08\0\0\0\0\0", b"Exif\0\0II*\0"])
def test_a_damaged_exif_block_turns_nothing(exif):
    image = photo(80, 60)
    whole, damaged = io.BytesIO(), io.BytesIO()
    image.save(whole, "JPEG", dpi=(72, 72))
    image.save(damaged, "JPEG", exif=exif, dpi=(72, 72))  # without its own resolution Pillow would look for it in EXIF
    np.testing.assert_array_equal(prepare(Image.open(damaged), INFO), prepare(Image.open(whole), INFO))


def test_paths_arrays_and_pillow_images_are_one(tmp_path):
    image = photo(50, 40)
    image.save(tmp_path / "i.png")
    sources = [image, tmp_path / "i.png", str(tmp_path / "i.png"), np.asarray(image)]
    tensors = [prepare(open_image(source), INFO) for source in sources]
    for tensor in tensors[1:]:
        np.testing.assert_array_equal(tensor, tensors[0])


@pytest.mark.parametrize(
    "array",
    [np.zeros(4, np.uint8), np.zeros((4, 4, 2), np.uint8), np.zeros((4, 4, 3), np.int32), np.zeros((0, 4, 3), np.uint8),
     np.full((4, 4, 3), 1.5, np.float32), np.full((4, 4), -0.1), np.full((4, 4), np.nan)],
)  # fmt: skip
def test_arrays_that_are_no_image_are_refused(array):
    with pytest.raises(InputError, match=r"expected \(height, width\[, 3 or 4\]\) or \(3, height, width\) in"):
        open_image(array)


def test_floats_are_the_levels_of_a_picture_file():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for kind in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(np.asarray(open_image((levels / 255).astype(kind))), levels)


def test_alpha_is_left_out_as_the_training_pipeline_leaves_it_out():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 4), np.uint8)
    np.testing.assert_array_equal(
        cropped(open_image(pixels), 16, STANDARD), cropped(open_image(pixels[..., :3]), 16, STANDARD)
    )


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    levels = np.linspace(0, 65535, 40 * 30).reshape(40, 30).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / "deep.png")
    Image.fromarray(np.rint(levels / 257).astype(np.uint8)).save(tmp_path / "plain.png")
    deep, plain = (cropped(open_image(tmp_path / name), 16, STANDARD) for name in ("deep.png", "plain.png"))
    np.testing.assert_array_equal(deep, plain)


def test_bytes_of_a_file_are_an_image():
    file = io.BytesIO()
    photo(50, 40).save(file, "PNG")
    np.testing.assert_array_equal(np.asarray(open_image(file.getvalue())), np.asarray(photo(50, 40)))
    with pytest.raises(BadFileError, match="the image is not a readable image of BMP, GIF, JPEG"):
        open_image(b"no image")


def test_an_upload_is_prepared_as_the_picture_is_and_what_is_none_is_a_bad_file():
    file = io.BytesIO()
    photo(50, 40).save(file, "PNG")
    np.testing.assert_array_equal(prepare_upload(file.getvalue(), INFO, 2000), prepare(photo(50, 40), INFO))
    with pytest.raises(BadFileError, match="the image has 2000 pixels, expected 1999 at most"):
        prepare_upload(file.getvalue(), INFO, 1999)
    with pytest.raises(BadFileError, match="the body is not a readable image of JPEG, PNG"):
        prepare_upload(file.getvalue()[:60], INFO, 2000)


def scanned(times, before=b""):
    """A progressive JPEG of ten scans, the last of which comes that often."""
    file = io.BytesIO()
    photo(50, 40).save(file, "JPEG", progressive=True)
    head, scan, tail = file.getvalue().rpartition(b"\xff\xda")
    assert head.count(scan) == 9
    return head + (before + scan + tail[:-2]) * times + tail[-2:]


@pytest.mark.parametrize("before", [b"", b"\xff\x01", b"\xff\xfe\x00\x03x"])  # a marker alone, and a comment
def test_an_upload_of_many_scans_is_refused(before):
    assert prepare_upload(scanned(91), INFO, 2000).shape == (3, 32, 32)
    with pytest.raises(BadFileError, match="the image has more than 100 scans"):
        prepare_upload(scanned(92, before), INFO, 2000)


def test_what_looks_like_scans_in_a_comment_or_after_the_image_is_none():
    file = io.BytesIO()
    photo(50, 40).save(file, "JPEG", comment=b"\xff\xda" * 200)
    file.write(b"\xff\xda" * 200)
    assert prepare_upload(file.getvalue(), INFO, 2000).shape == (3, 32, 32)


def test_a_format_that_starts_another_program_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png", "EPS")
    with pytest.raises(BadFileError, match="is not a readable image of BMP"):
        open_image(tmp_path / "image.png")


def test_bytes_that_a_graph_normalises_are_those_that_would_be_normalised():
    pictures = np.stack([cropped(photo(50, 40), 32, STANDARD)] * 2)
    plain = as_input(pictures, INFO)
    np.testing.assert_array_equal(plain, normalised(pictures, STANDARD))
    nhwc = as_input(pictures, dataclasses.replace(INFO, input_format="uint8"))
    nchw = as_input(pictures, dataclasses.replace(INFO, input_format="uint8-nchw"))
    np.testing.assert_array_equal(nhwc, pictures)
    np.testing.assert_array_equal(nchw, pictures.transpose(0, 3, 1, 2))


def bicubic(x):
    """The cubic convolution kernel with a = -0.5."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def resized_rows(pixels, size):
    """uint8 (H, W, C) to (size, W, C): each row a weighted mean of those under the kernel, widened where it shrinks."""
    scale = len(pixels) / size
    stretch = max(scale, 1.0)
    rows = []
    for i in range(size):
        centre = (i + 0.5) * scale
        first, end = max(0, int(centre - 2 * stretch + 0.5)), min(len(pixels), int(centre + 2 * stretch + 0.5))
        weights = np.array([bicubic((j - centre + 0.5) / stretch) for j in range(first, end)])
        # In fixed point, as Pillow computes: 22 bits behind the point, rounded half away from zero.
        fixed = [math.trunc(weight * 2**22 + math.copysign(0.5, weight)) for weight in weights / weights.sum()]
        total = np.tensordot(np.array(fixed, np.int64), pixels[first:end].astype(np.int64), 1)
        rows.append(np.clip((total + 2**21) >> 22, 0, 255))
    return np.stack(rows).astype(np.uint8)


def resized_columns(pixels, size):
    return resized_rows(pixels.transpose(1, 0, 2), size).transpose(1, 0, 2)


@pytest.mark.parametrize("shape", [(97, 61), (40, 160), (16, 300), (1, 1), (3, 5), (701, 223)])
def test_the_resizing_is_pillows_to_the_last_bit(shape):
    """Against an implementation of its own: so the tensor depends on no more of Pillow than decoding."""
    image = photo(*shape)
    short = STANDARD.resized(32)
    width, height = shape
    to = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    pixels = np.asarray(image)
    rows_first = int(PIL.__version__.split(".")[0]) >= 13 and height > 3 * width and to[1] < height
    if rows_first:  # since Pillow 13, of a tall image that shrinks
        whole = resized_columns(resized_rows(pixels, to[1]), to[0])
    else:
        whole = resized_rows(resized_columns(pixels, to[0]), to[1])
    top, left = round((to[1] - 32) / 2), round((to[0] - 32) / 2)
    np.testing.assert_array_equal(cropped(image, 32, STANDARD), whole[top : top + 32, left : left + 32])


def test_files_that_are_no_image_are_refused(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        open_image(tmp_path / "none.png")
    photo(50, 40).save(tmp_path / "i.png")
    data = (tmp_path / "i.png").read_bytes()
    for name, content in {"text.png": b"no image", "half.png": data[: len(data) // 2], "empty.jpg": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadFileError, match="not a readable image"):
            open_image(tmp_path / name)


def test_more_exif_blocks_than_an_image_has_are_refused_before_they_are_copied():
    data = io.BytesIO()
    photo(50, 40).save(data, "JPEG")
    body, block = data.getvalue(), b"\xff\xe1\0\x0cExif\0\0\0\0\0\0"
    assert prepare_upload(body[:2] + block * 16 + body[2:], INFO, 2000).shape == (3, 32, 32)
    with pytest.raises(BadFileError, match="the image has more than 16 EXIF blocks"):
        prepare_upload(body[:2] + block * 17 + body[2:], INFO, 2000)


def test_a_picture_that_pillow_has_opened_and_cannot_read_is_refused(tmp_path):
    photo(50, 40).save(tmp_path / "i.png")
    data = (tmp_path / "i.png").read_bytes()
    with pytest.raises(BadFileError, match="the image is not a readable image: "):
        open_image(Image.open(io.BytesIO(data[: len(data) // 2])))


def test_a_decompression_bomb_is_a_bad_file(tmp_path, monkeypatch):
    photo(200, 100).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    with pytest.raises(BadFileError, match="large.png is not a readable image: .*exceeds limit"):
        open_image(tmp_path / "large.png")


GOLDEN = np.load(Path(__file__).parent / "golden" / "preprocessing.npz")
CASES = json.loads(str(GOLDEN["cases"]))


def golden_info(case):
    """A model whose preprocessing its source states as `case` says."""
    read = {"timm": stated_by_timm, "hugging-face": stated_by_hugging_face}[case["source"]]
    return dataclasses.replace(INFO, image_size=case["size"], preprocessing=resolved([read(case["config"])]))


@pytest.mark.parametrize("source", ["timm", "hugging-face"])
@pytest.mark.parametrize("shape", recipe.PICTURES, ids=lambda shape: "x".join(map(str, shape)))
def test_pixels_are_those_of_timm_and_of_transformers(source, shape):
    number = recipe.PICTURES.index(shape)
    cases = [case for case in CASES if (case["source"], case["picture"]) == (source, number)]
    assert len(cases) >= 16
    for case in cases:
        info = golden_info(case)
        got = recipe.checksum(cropped(recipe.picture(number), case["size"], info.preprocessing))
        assert got in case["checksums"], case


@pytest.mark.parametrize("name", [name for name in GOLDEN.files if name != "cases"])
def test_tensors_are_those_of_timm_and_of_transformers(name):
    case = CASES[int(name.removeprefix("tensor"))]
    got = prepare(recipe.picture(case["picture"]), golden_info(case))
    np.testing.assert_allclose(got, GOLDEN[name], atol=1e-6)


def whole(image, size, how):
    """All of the resized image, and the centre cut out of it."""
    short = how.resized(size)
    width, height = image.size
    to = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    image = image.convert("RGB").resize(to, Image.Resampling[how.interpolation.upper()])
    left, top = how.offset(to[0], size), how.offset(to[1], size)
    return np.asarray(image.crop((left, top, left + size, top + size)))


LONG = [(1, 150), (2, 333), (3, 1000), (7, 701), (31, 3201), (40, 4444), (61, 6300), (1, 3999)]


@pytest.mark.parametrize("interpolation", recipe.FILTERS)
@pytest.mark.parametrize("shape", LONG, ids=lambda shape: "x".join(map(str, shape)))
def test_what_is_kept_of_a_long_image_is_what_all_of_it_would_hold(shape, interpolation):
    pixels = np.random.PCG64(sum(shape)).random_raw(shape[0] * shape[1]).view(np.uint8)[: shape[0] * shape[1] * 3]
    for sides in (shape, shape[::-1]):
        image = Image.fromarray(pixels.reshape(sides[1], sides[0], 3))
        for share, rounding in ((0.875, "timm"), (1.0, "timm"), (32 / 37, "hugging-face")):
            how = Preprocessing(interpolation=interpolation, crop_pct=share, rounding=rounding)
            np.testing.assert_array_equal(cropped(image, 32, how), whole(image, 32, how), f"{sides} {how}")


def test_a_long_image_is_not_resized_as_a_whole(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("resized as a whole")

    monkeypatch.setattr(Image.Image, "resize", refuse)
    assert cropped(Image.new("L", (1, 4000), 77), 224, STANDARD).mean() == 77
    with pytest.raises(AssertionError, match="as a whole"):
        cropped(Image.new("L", (1, 50)), 224, STANDARD)


def test_a_small_file_of_a_long_image_takes_little_memory(tmp_path):
    Image.new("1", (1, 4000)).save(tmp_path / "long.png")
    assert (tmp_path / "long.png").stat().st_size < 200
    code = (
        "from pathlib import Path\nfrom evodeploy.preprocess import cropped, open_image\n"
        "from evodeploy.specs import Preprocessing\nfrom PIL import Image\n"
        "def run(image): return cropped(image, 224, Preprocessing())\n"
        "def most(): return int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "run(Image.new('RGB', (300, 300)))\nbefore = most()\n"
        f"run(open_image(Path({str(tmp_path / 'long.png')!r})))\nprint(most() - before)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 40_000  # kB; resized as a whole it is 1.2 million


def test_sides_that_do_not_fit_are_refused_before_anything_is_decoded(tmp_path):
    file = io.BytesIO()
    Image.new("1", (1, 10_001)).save(file, "PNG")
    message = "the image has 1 x 10001 pixels, expected one side to be 10000 times the other at most"
    with pytest.raises(BadFileError, match=message):
        open_image(file.getvalue()[:60])
    with pytest.raises(BadFileError, match=message):
        cropped(Image.new("L", (1, 10_001)), 224, STANDARD)
    assert cropped(Image.new("L", (10_000, 1)), 224, STANDARD).shape == (224, 224, 3)


def grey(values):
    return Image.fromarray(np.asarray(values).reshape(1, -1).repeat(3, 0))


def test_floats_and_greys_of_32_bits_are_scaled_by_their_known_range():
    levels = np.linspace(0, 1, 40)
    expected = cropped(grey(np.rint(levels * 255).astype(np.uint8)), 16, STANDARD)
    np.testing.assert_array_equal(cropped(grey(levels.astype(np.float32)), 16, STANDARD), expected)
    deep = np.rint(levels * 65535)
    expected = cropped(grey(np.rint(deep / 257).astype(np.uint8)), 16, STANDARD)
    for kind in (np.uint16, np.int32):
        np.testing.assert_array_equal(cropped(grey(deep.astype(kind)), 16, STANDARD), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([0, 255], np.float32), "grey levels from 0 to 255, expected 0 to 1 in Pillow's mode 'F'"),
        (np.array([-0.5, 1], np.float32), "grey levels from -0.5 to 1,"),
        (np.array([0, np.nan], np.float32), "grey levels from nan to nan"),
        (np.array([0, 65536], np.int32), "grey levels from 0 to 65536, expected 0 to 65535 in Pillow's mode 'I'"),
        (np.array([-1, 9], np.int32), "grey levels from -1 to 9"),
    ],
)
def test_levels_of_unknown_range_are_refused(values, message):
    with pytest.raises(BadFileError, match=message):
        cropped(grey(values), 16, STANDARD)


def test_levels_are_scaled_alike_in_bands(monkeypatch):
    deep = np.random.default_rng(0).integers(0, 65536, (50, 31), np.uint16)
    expected = cropped(Image.fromarray(deep), 16, STANDARD)
    monkeypatch.setattr("evodeploy.preprocess._AT_ONCE", 100)
    np.testing.assert_array_equal(cropped(Image.fromarray(deep), 16, STANDARD), expected)


def test_only_a_regular_file_is_an_image_and_nothing_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for source, sentence in (
        (tmp_path / "pipe.png", "pipe.png is a pipe, not a file"),
        (tmp_path, "is a folder, not a file"),
        ("/dev/zero", "/dev/zero is a device, not a file"),
        ("", "the name of a file is empty"),
        ("a\0b.png", r"cannot read a\\x00b.png"),
        ("x" * 300 + ".png", "File name too long"),
    ):
        with pytest.raises(UsageError, match=sentence):
            open_image(source)


@pytest.mark.parametrize(
    ("first", "second", "unlike"),
    [
        ({"crop_pct": 0.9}, {"crop_pct": math.nextafter(0.9, 0)}, None),
        ({"crop_pct": 0.9}, {"crop_pct": 224 / 248}, None),
        ({"crop_pct": 0.9}, {"crop_pct": 224 / 248, "rounding": "hugging-face"}, "rounding timm and hugging-face"),
        ({"crop_mode": "squash"}, {"crop_mode": "squash", "rounding": "hugging-face"}, None),
        ({"crop_pct": 0.9}, {"crop_pct": 0.95}, "crop_pct 0.9 and 0.95"),
        ({}, {"crop_mode": "squash"}, "crop_mode center and squash"),
    ],
)
def test_shares_and_rounding_differ_where_pixels_do(first, second, unlike):
    at_224 = dataclasses.replace(INFO, image_size=224)
    ours, theirs = (dataclasses.replace(at_224, preprocessing=Preprocessing(**how)) for how in (first, second))
    assert difference(ours, theirs) == unlike


def test_more_pictures_than_memory_should_hold_are_refused_before_one_is_read():
    most = HELD // (32 * 32 * 3)
    with pytest.raises(UsageError, match=f"there are {most + 1} images, expected {most} at most of this size"):
        pictures([b"no image"] * (most + 1), INFO)
