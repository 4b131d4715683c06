"""Small TIFF files that would take much time or memory, and ordinary ones."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffTags

from evodeploy import tiff
from evodeploy.errors import BadFileError
from evodeploy.preprocess import prepare, prepare_upload
from evodeploy.specs import ModelInfo
from evodeploy.tiff import check_tags

INFO = ModelInfo("fake", 32, 4, 3, "stage", (0.5,))
PIXELS = 10_000
SHORT, LONG, LONG8, RATIONAL, BYTES = 3, 4, 16, 5, 7


def entry(tag, value, kind=LONG, count=1, order="<"):
    if kind == SHORT:
        return struct.pack(f"{order}HHLHH", tag, kind, count, value, 0)
    return struct.pack(f"{order}HHLL", tag, kind, count, value)


def directory(entries, order="<"):
    return struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4)


def file(*entries, rest=b"", order="<", version=42):
    """A TIFF file of 8 x 8 grey pixels with these entries too; `rest` begins at `place(*entries)`."""
    mark = b"II" if order == "<" else b"MM"
    head = mark + struct.pack(f"{order}HL", version, 8)
    sides = [entry(256, 8, order=order), entry(257, 8, order=order)]
    return head + directory([*sides, *entries], order) + rest


def place(count):
    return 8 + 2 + 12 * (count + 2) + 4


def ordinary(**options):
    data = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(data, "TIFF", **options)
    return data.getvalue()


def with_exif():
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0x9286] = b"a comment" * 20
    exif.get_ifd(0x8825)[1] = "N"
    return exif


def big_endian():
    data = io.BytesIO()
    Image.fromarray(np.arange(600, dtype=">u2").reshape(20, 30).astype(np.uint16)).convert("I;16B").save(data, "TIFF")
    assert data.getvalue().startswith(b"MM")
    return data.getvalue()


@pytest.mark.parametrize(
    "body",
    [
        ordinary(),
        ordinary(compression="tiff_lzw"),
        ordinary(compression="jpeg"),
        ordinary(compression="tiff_adobe_deflate", icc_profile=bytes(4000), description="words"),
        ordinary(exif=with_exif()),
        ordinary(save_all=True, append_images=[Image.new("L", (9, 9))]),
        big_endian(),
    ],
)
def test_ordinary_files_are_read(body):
    check_tags(body, PIXELS)
    assert (prepare_upload(body, INFO, PIXELS) == prepare(Image.open(io.BytesIO(body)), INFO)).all()


@pytest.mark.parametrize(
    "body", [b"", b"II", b"MM", b"II*\0", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"PNG"]
)
def test_what_is_no_tiff_file_is_left_to_the_decoder(body):
    check_tags(body, PIXELS)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [SHORT, LONG])
def test_a_tile_larger_than_any_image_is_refused_though_the_image_is_small(order, kind):
    for width, height in ((100, 100), (100, 101), (1, 20_000)):
        body = file(entry(322, width, kind, order=order), entry(323, height, kind, order=order), order=order)
        if width * height <= PIXELS:
            check_tags(body, PIXELS)
            continue
        with pytest.raises(BadFileError, match=f"has tiles of {width} x {height} pixels, expected 10000 at most"):
            check_tags(body, PIXELS)
    twice = file(entry(322, 1, order=order), entry(322, 101, order=order), entry(323, 100, order=order), order=order)
    with pytest.raises(BadFileError, match="has tiles of 101 x 100"):
        check_tags(twice, PIXELS)


@pytest.mark.parametrize(("tag", "kind"), [(273, LONG), (324, BYTES), (282, RATIONAL), (50000, SHORT)])
def test_too_many_numbers_are_refused_in_any_directory_that_pillow_reads(monkeypatch, tag, kind):
    monkeypatch.setattr(tiff, "MOST_NUMBERS", 100)
    many = entry(tag, 8, kind, 99)
    inner = directory([many, entry(40965, place(1) + 2 + 24 + 4)]) + directory([many])
    for body in (
        file(many),
        file(entry(34665, place(1)), rest=directory([many])),
        file(entry(34853, place(1), 13), rest=inner),
    ):
        with pytest.raises(BadFileError, match=r"the tags of the image hold 10[0-9]+ numbers|hold 2[0-9]+ numbers"):
            check_tags(body, PIXELS)
    check_tags(file(entry(tag, 8, kind, 98)), PIXELS)


def test_tags_that_share_their_bytes_are_refused():
    size, count = 2000, 200
    data = zlib.compress(bytes(64))
    begin = place(7 + count)
    needed = [
        entry(258, 8, SHORT), entry(259, 8, SHORT), entry(262, 1, SHORT), entry(273, begin), entry(277, 1, SHORT),
        entry(278, 8), entry(279, len(data)),
    ]  # fmt: skip
    shared = [entry(50000 + number, begin, BYTES, size) for number in range(count)]
    body = file(*needed, *shared, rest=data + bytes(size))
    with pytest.raises(
        BadFileError, match=f"the tags of the image claim {size * count} bytes, more than its {len(body)}"
    ):
        prepare_upload(body, INFO, PIXELS)


@pytest.mark.parametrize(
    "odd",
    [entry(322, 8, LONG8), entry(323, 8, LONG, 2), entry(34665, 8, RATIONAL), entry(34853, 8, LONG, 0)],
)
def test_a_tag_that_decoders_could_read_in_another_way_is_refused(odd):
    with pytest.raises(BadFileError, match="in an unusual form: save it as PNG"):
        check_tags(file(odd), PIXELS)


def test_directories_without_an_end_and_bigtiff_are_refused():
    with pytest.raises(BadFileError, match="the image has tag 34665 in an unusual form"):
        check_tags(file(entry(34665, 8)), PIXELS)
    data = io.BytesIO()
    Image.new("L", (9, 9)).save(data, "TIFF", big_tiff=True)
    for body in (data.getvalue(), file(version=43, order=">")):
        with pytest.raises(BadFileError, match="is a BigTIFF file: save it as an ordinary TIFF file, or as PNG"):
            prepare_upload(body, INFO, PIXELS)


def test_all_directories_that_pillow_reads_are_known():
    assert {*TiffTags.TAGS_V2_GROUPS} == {*tiff._FURTHER}
