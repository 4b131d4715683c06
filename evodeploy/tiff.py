"""The tags of a TIFF file, checked before it is decoded: a small file can make decoders take gigabytes or minutes."""

from __future__ import annotations

from typing import Literal

from evodeploy.errors import BadFileError

MOST_NUMBERS = 200_000  # in all tags: Pillow takes microseconds for each, and longer for each strip or tile

_TEXTS = (1, 2, 6, 7)  # types whose values are single bytes
_INTEGERS = {3: 2, 4: 4, 13: 4}  # types of whole numbers, with their bytes
_OFFSETS = (273, 324)  # one number for each strip or tile, of any type
_SIDES = (322, 323)  # of a tile
_FURTHER = (34665, 34853, 40965)  # places of further directories that Pillow reads


def check_tags(body: bytes, pixels: int) -> None:
    """Raise BadFileError for a TIFF file with more numbers or bytes in its tags, or larger tiles, than an image needs.

    Other files pass. Tags that decoders would read in another way than this function are refused.
    """
    if not body.startswith((b"II", b"MM")):
        return
    order: Literal["little", "big"] = "little" if body.startswith(b"II") else "big"
    if 43 in body[2:4]:
        raise BadFileError("the image is a BigTIFF file: save it as an ordinary TIFF file, or as PNG")

    def at(place: int, size: int) -> int:
        return int.from_bytes(body[place : place + size], order)

    numbers = texts = 0
    sides = dict.fromkeys(_SIDES, 1)
    directories = [at(4, 4)]
    for directory in directories:
        for entry in range(directory + 2, directory + 2 + 12 * at(directory, 2), 12):
            tag, kind, count = at(entry, 2), at(entry + 2, 2), at(entry + 4, 4)
            if kind in _TEXTS and tag not in _OFFSETS:
                texts += count
            else:
                numbers += count
            if tag not in (*_SIDES, *_FURTHER):
                continue
            if kind not in _INTEGERS or count != 1 or len(directories) > len(_FURTHER):
                raise BadFileError(f"the image has tag {tag} in an unusual form: save it as PNG")
            value = at(entry + 8, _INTEGERS[kind])
            if tag in _SIDES:
                sides[tag] = max(sides[tag], value)
            else:
                directories.append(value)
    width, height = sides.values()
    if width * height > pixels:
        raise BadFileError(
            f"the image has tiles of {width} x {height} pixels, expected {pixels} at most: save it as PNG"
        )
    if numbers > MOST_NUMBERS:
        raise BadFileError(
            f"the tags of the image hold {numbers} numbers, expected {MOST_NUMBERS} at most: save it as PNG"
        )
    if texts > len(body):
        raise BadFileError(f"the tags of the image claim {texts} bytes, more than its {len(body)}: save it as PNG")
