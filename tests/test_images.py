from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from evodeploy.errors import InputError, UsageError
from evodeploy.images import images_of

PICTURE = np.zeros((4, 5, 3), np.uint8)


def test_images_are_taken_one_by_one(tmp_path):
    for name in ("b.png", "a.png", "deep/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(PICTURE).save(tmp_path / name)
    paths = [tmp_path / name for name in ("a.png", "b.png", "deep/c.png")]
    assert images_of(str(tmp_path)) == paths
    assert images_of([tmp_path / "b.png", tmp_path / "deep"]) == [paths[1], paths[2]]
    (image,) = images_of(PICTURE)
    assert image is PICTURE
    batch = torch.zeros(2, 3, 4, 5)
    assert [each.shape for each in images_of([batch, PICTURE])] == [(3, 4, 5), (3, 4, 5), (4, 5, 3)]


@pytest.mark.parametrize(("images", "error"), [([], UsageError), (3, InputError), ([None], InputError)])
def test_what_holds_no_image_is_refused(images, error):
    with pytest.raises(error, match="expected"):
        images_of(images)
