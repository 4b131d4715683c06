"""Webdataset tars, sound and hostile."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc

import pytest
from data_kinds import member, write_tar

from evodeploy.datasets.tars import _HEADER, members_of
from evodeploy.errors import BadFileError


def test_a_sample_is_the_files_of_one_name_up_to_the_first_dot(tmp_path):
    path = write_tar(
        tmp_path / "a.tar",
        {
            "x/0.cls": b"7\n", "x/0.JPG": b"zero", "x/0.seg.png": b"none", "y/0.png": b"y", "y/0.json": b'{"cls": 3}',
            "b.webp": b"bee", "b.txt": b"a bee ", "c.jpeg": b"bare", "c.json": b'{"width": 9}', ".hidden.png": b"x",
        },
    )  # fmt: skip
    assert [(image.name, image.read(), label) for image, label in members_of(path)] == [
        ("x/0.JPG", b"zero", 7), ("y/0.png", b"y", 3), ("b.webp", b"bee", "a bee"), ("c.jpeg", b"bare", None),
    ]  # fmt: skip


def test_samples_without_an_image_are_left_out_aloud(tmp_path, logged):
    """A second dot makes another extension, as webdataset has it."""
    samples = {
        "a.png": b"a",
        "a.seg.png": b"",
        "a.cls": b"1",
        "b.2.png": b"b",
        "b.cls": b"2",
        "c.cls": b"3",
        "d.gif": b"",
    }
    path = write_tar(tmp_path / "a.tar", samples)
    assert [image.name for image, _ in members_of(path)] == ["a.png"]
    assert logged[-1].startswith(f"3 samples of {path} are left out, such as 'b': they have no image")


def written(path, *members):
    with tarfile.open(path, "w") as archive:
        for name, data, how in members:
            member(archive, name, data, **how)
    return path


def claiming(size):
    """A tar whose one member claims `size` bytes and has four."""
    info = tarfile.TarInfo("a.png")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT) + b"1234" + bytes(508) + bytes(1024)


def header(kind, size):
    """The head of a long name or of a pax header that claims `size` bytes."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def sound():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("a.png", "b.png"):
            member(archive, name, b"data" * 200)
    return file.getvalue()


def broken(at, value=b"\xff"):
    data = bytearray(sound())
    data[at : at + len(value)] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (claiming(1 << 30), r"a\.png claims 1073741824 bytes, more than"),
        (claiming((1 << 63) - 1), r"claims 9223372036854775807 bytes, more than|is not a readable tar"),
        (header(tarfile.GNUTYPE_LONGNAME, 1 << 40), "a header claims 109951162"),
        (header(tarfile.XHDTYPE, 1 << 33), "a header claims 8589934592 bytes"),
        (b"", "is not a readable tar"),
        (b"no tar" * 999, "is not a readable tar"),
        (sound()[:1536], "b.png claims 800 bytes|is damaged or cut short"),
        (sound()[:3072], "is damaged or cut short at byte 3072"),
        (broken(1536), "is damaged or cut short at byte 1536"),
        (bytes(10240), "holds no images: expected names that end with jpg"),
        (sound() + sound(), "has more after its end at byte 3072, like tars joined by cat"),
        (gzip.compress(sound()), "is compressed, .*: unpack it"),
    ],
)
def test_what_a_tar_claims_is_not_trusted(tmp_path, data, sentence):
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(BadFileError, match=sentence):
        members_of(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ([("a.png", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})], "a.png is a link, a device or a pipe"),
        ([("a.png", b"", {"type": tarfile.LNKTYPE, "linkname": "b.png"})], "a.png is a link"),
        ([("a.png", b"", {"type": tarfile.FIFOTYPE})], "a.png is a link, a device or a pipe"),
        ([("a.png", b"", {"pax_headers": {"GNU.sparse.size": "99", "GNU.sparse.map": "0,1"}})], "a.png is sparse"),
        ([("a.png", b"1", {}), ("a.jpg", b"2", {})], r"a\.jpg is a second image with the same key as a\.png"),
        ([("a.png", b"1", {}), ("a.cls", b"1", {}), ("a.txt", b"2", {})], "a.txt says 2, but another file"),
        ([("a.png", b"1", {}), ("a.json", b"{", {})], "a.json is not a label"),
        ([("a.png", b"1", {}), ("a.json", b'{"label": [1]}', {})], "neither a whole number nor text"),
        ([("a.png", b"1", {}), ("a.cls", b"\xff", {})], "a.cls is not a label"),
        ([("a.png", b"1", {}), ("a.json", b" " * (_HEADER + 1), {})], r"a\.json has 1048577 bytes, expected at most"),
    ],
)
def test_members_that_are_no_sample_are_refused(tmp_path, members, sentence):
    with pytest.raises(BadFileError, match=sentence):
        members_of(written(tmp_path / "a.tar", *members))


def test_names_that_lead_elsewhere_are_names_alone(tmp_path):
    """Nothing is unpacked."""
    path = write_tar(tmp_path / "a.tar", {"../../etc/a.png": b"1", "/root/b.png": b"2"})
    assert [image.read() for image, _ in members_of(path)] == [b"1", b"2"]
    assert [each.name for each in tmp_path.iterdir()] == ["a.tar"]


def test_a_tar_that_has_changed_since_it_was_listed_is_said_to_be_cut_short(tmp_path):
    path = write_tar(tmp_path / "a.tar", {"a.png": b"data" * 999})
    ((image, _),) = members_of(path)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(BadFileError, match=r"a\.tar/a\.png is cut short"):
        image.read()


def test_an_index_holds_places_and_not_what_lies_there(tmp_path):
    path = write_tar(tmp_path / "a.tar", {f"{i}.png": bytes(1 << 20) for i in range(30)})
    tracemalloc.start()
    try:
        found = members_of(path)
        assert len(found) == 30 and tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
