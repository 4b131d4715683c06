from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_kinds import listing
from fake_engines import FakeEngine
from PIL import Image

import evodeploy
from evodeploy.engines.base import run_all
from evodeploy.engines.opener import open_engine
from evodeploy.errors import UsageError
from evodeploy.preprocess import as_input, pictures
from evodeploy.specs import EngineOptions, ModelInfo, TensorSpec
from evodeploy.visualization.drawing import coloured, enlarged, with_kept, with_scores
from evodeploy.visualization.evolution import evolutions
from evodeploy.visualization.figure import figure, overview, scale_in_words

GENERATOR = np.random.default_rng(4)
PICTURE = GENERATOR.integers(0, 256, (64, 64, 3), np.uint8)


@pytest.mark.parametrize("picture", [PICTURE // 4, PICTURE // 4 + 192], ids=["dark", "light"])
def test_kept_patches_stay_and_the_others_are_dim_on_light_and_dark_images(picture):
    kept = np.zeros((4, 4), bool)
    kept[1, 2] = kept[3, 0] = True
    after = np.asarray(with_kept(Image.fromarray(picture), kept))
    for row, column in np.ndindex(4, 4):
        inside = np.s_[row * 16 + 1 : row * 16 + 15, column * 16 + 1 : column * 16 + 15]
        if kept[row, column]:
            np.testing.assert_array_equal(after[inside], picture[inside])
        else:
            assert 0 < after[inside].std() < 0.4 * picture[inside].std()
            assert abs(after[inside].mean() - picture[inside].mean()) > 30


def test_attention_goes_from_dark_to_light():
    scores = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    drawn = np.asarray(with_scores(Image.new("RGB", (64, 64)), scores), float).mean(axis=2)
    tiles = drawn.reshape(4, 16, 4, 16).mean(axis=(1, 3)).ravel()
    assert (np.diff(tiles) > 0).all()
    assert np.diff(coloured(np.linspace(0, 1, 50)).sum(axis=1)).min() > 0


def test_equal_attention_is_drawn():
    assert with_scores(Image.new("RGB", (8, 8)), np.full((2, 2), 0.5, np.float32)).size == (8, 8)


def test_a_picture_is_not_compared_with_every_image(small_onnx, monkeypatch, tmp_path):
    images = [tmp_path / f"{number}.png" for number in range(12)]
    for path in images:
        Image.fromarray(PICTURE).save(path)
    evodeploy.visualize(small_onnx, images, tmp_path / "drawn")
    compared, same = [], Path.samefile
    monkeypatch.setattr(Path, "samefile", lambda *pair: compared.append(pair) or same(*pair))
    evodeploy.visualize(small_onnx, images, tmp_path / "drawn", force=True)
    assert len(compared) <= len(images)


def test_pictures_of_one_name_and_those_that_are_images_themselves_are_refused(small_onnx, tmp_path):
    (tmp_path / "a").mkdir()
    images = [tmp_path / "5.png", tmp_path / "6.png", tmp_path / "a" / "5.png"]
    for path in images:
        Image.fromarray(PICTURE).save(path)
    with pytest.raises(UsageError, match="several pictures would be called .*5.png: give images of different names"):
        evodeploy.visualize(small_onnx, images, tmp_path / "drawn")
    with pytest.raises(UsageError, match="the output .*6.png is the input itself"):
        evodeploy.visualize(small_onnx, images[1], tmp_path, force=True)


def test_each_row_of_a_table_has_a_picture(small_onnx, tmp_path):
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, "PNG")
    pq.write_table(pa.table({"image": [file.getvalue()] * 2}), tmp_path / "some.parquet")
    drawn = evodeploy.visualize(small_onnx, tmp_path / "some.parquet", tmp_path / "drawn")
    names = ["some.parquet, row 0.png", "some.parquet, row 1.png", "overview.png"]
    assert [path.name for path in drawn.pictures] == names
    assert listing(tmp_path / "drawn") == sorted(names)


def test_small_pictures_keep_their_pixels():
    assert enlarged(PICTURE, 256).size == (256, 256)
    np.testing.assert_array_equal(np.asarray(enlarged(PICTURE, 256))[::4, ::4], PICTURE)
    assert enlarged(PICTURE, 10).size == (64, 64)


def test_evolutions_are_the_engines_outputs(small_onnx):
    images = [Image.fromarray(GENERATOR.integers(0, 256, (70, 90, 3), np.uint8)) for _ in range(3)]
    with open_engine(small_onnx) as engine:
        found = evolutions(engine, images)
        outputs = run_all(engine, as_input(pictures(images, engine.info), engine.info))
    for row, evolution in enumerate(found):
        assert [s.title for s in evolution.selections] == ["selection 1, before block 2", "selection 2, before block 4"]
        for index, selection in enumerate(evolution.selections):
            kept = set(np.flatnonzero(selection.kept))
            assert kept == set(outputs[f"selected_{index}"][row])
            np.testing.assert_array_equal(selection.scores.ravel(), outputs[f"scores_{index}"][row])


def test_later_grids_are_drawn_at_their_own_size():
    """As of Evo-LeViT, whose second grid holds every other row and column of the first."""
    info = ModelInfo("fake", 32, 4, 3, "stage", (0.5,))
    outputs = {"logits": np.zeros((1, 3)), "selected_0": np.array([[0, 2, 16 + 4]]), "scores_0": np.arange(16.0)[None]}
    engine = FakeEngine(info, compute=lambda images: outputs)
    engine.outputs += (TensorSpec("selected_0", "int64", (None, 3)), TensorSpec("scores_0", "float32", (None, 16)))
    (evolution,) = evolutions(engine, [Image.new("RGB", (40, 40))])
    assert np.argwhere(evolution.selections[0].kept).tolist() == [[0, 0], [0, 1], [1, 2]]


def test_artefacts_without_selections_are_refused():
    info = ModelInfo("fake", 32, 4, 3, "stage", (0.5,))
    with pytest.raises(UsageError, match="export it with --tokens"):
        evolutions(FakeEngine(info), [PICTURE])
    with pytest.raises(UsageError, match="keeps every token"):
        evolutions(FakeEngine(ModelInfo("fake", 32, 4, 3, "stage", (1.0,))), [PICTURE])


def test_where_tokens_merge_scores_are_no_attention(small):
    """The network merges tokens by how unlike they are to the anchors, every second one of every second row."""
    resting, merging = (evodeploy.visualize(small.module, [PICTURE], fast_path=each) for each in ("rest", "merge"))
    anchors = np.zeros((8, 8), bool)
    anchors[::2, ::2] = True
    for each in merging.evolutions[0][0].selections:
        assert each.merged
        np.testing.assert_array_equal(each.scores == each.scores.max(), anchors)
        assert each.kept[anchors].all()
        assert scale_in_words(each) == ("unlike the anchors: least", "most, and the anchors")
    first = resting.evolutions[0][0].selections[0]
    assert scale_in_words(first)[0] == "class attention: least"
    bottom = [np.asarray(each.figure(), float)[-40:] for each in (resting, merging)]
    assert np.abs(bottom[0] - bottom[1]).max() > 100  # the legends


def test_a_checkpoint_is_drawn_at_each_keep_ratio_and_what_is_exported_states_its_fast_path(
    cli, small_checkpoint, small_onnx, tmp_path
):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    command = ("visualize", small_checkpoint, tmp_path / "a.png", "-o", tmp_path / "new")
    assert cli(*command, "--fast-path", "merge", "--keep-ratio", "0.2,1.0")[0] == 0
    drawn = evodeploy.visualize(small_checkpoint, [PICTURE], fast_path="merge", keep_ratios=[0.2, 1.0])
    kept = [[int(each.kept.sum()) for each in evolution.selections] for evolution in drawn.evolutions[0]]
    assert kept == [[12, 12], [64, 64]]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")).shape[1], drawn.figure().width)
    code, _, err = cli("visualize", small_onnx, tmp_path / "a.png", "-o", tmp_path / "x", "--fast-path", "merge")
    assert (code, "was exported with a fast path of its own: leave out --fast-path" in err) == (2, True)
    with pytest.raises(UsageError, match="fast_path is 'sleep', expected one of rest, merge"):
        evodeploy.visualize(small_checkpoint, [PICTURE], fast_path="sleep")


def test_figures_show_every_selection(small_onnx):
    with open_engine(small_onnx) as engine:
        found = evolutions(engine, [PICTURE, PICTURE[::-1]])
    drawn = figure(found[0], "a title")
    pixels = np.asarray(drawn)
    whole = np.asarray(enlarged(found[0].picture, 256))
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (4, 4, 3))[:, :, 0]
    assert (windows == whole[:4, :4]).all(axis=(2, 3, 4)).sum() == 1
    assert overview(found, ["one", "a name that is much too long for its column" * 3]).width > 2 * 64


def test_an_overview_of_many_images_shows_the_first_sixteen(small_onnx):
    sixteen, many = (evodeploy.visualize(small_onnx, [PICTURE] * count).overview() for count in (16, 40))
    assert np.array_equal(np.asarray(sixteen), np.asarray(many))


def test_without_a_folder_nothing_is_written(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    drawn = evodeploy.visualize(small.module, [PICTURE, Image.fromarray(PICTURE[::-1])])
    assert drawn.names == ("image 1", "image 2")
    assert str(drawn).startswith(
        "2 images of evo_deit_test, FP32; kept in selection 1, before block 2: 32 of 64 tokens"
    )
    assert Image.open(io.BytesIO(drawn._repr_png_())).size == drawn.overview().size
    assert drawn.to_dict() == {"pictures": []}
    assert (list(tmp_path.iterdir()), capsys.readouterr()) == ([], ("", ""))


def test_the_heading_says_what_the_artefact_was_computed_in(small_checkpoint):
    drawn = evodeploy.visualize(small_checkpoint, [PICTURE], options=EngineOptions(precision="bf16"))
    assert drawn.model == "evo_deit_test, BF16"


def test_an_empty_list_of_keep_ratios_is_refused(small_elastic):
    with pytest.raises(UsageError, match="keep_ratios are empty: expected one or more"):
        evodeploy.visualize(small_elastic, [PICTURE], keep_ratios=[])


def test_an_elastic_artefact_is_drawn_at_each_keep_ratio(cli, small_elastic, small_onnx, tmp_path):
    drawn = evodeploy.visualize(small_elastic, [PICTURE, PICTURE[::-1]], keep_ratios=[0.2, (0.5, 0.25), 1.0])
    kept = [[int(each.kept.sum()) for each in evolution.selections] for evolution in drawn.evolutions[0]]
    assert kept == [[12, 12], [32, 16], [64, 64]]
    assert "at keep ratio 0.5/0.25 in selection 1, before block 2: 32 of 64 tokens, selection 2" in str(drawn)
    pixels = np.asarray(drawn.figure(), float)
    whole = np.asarray(enlarged(drawn.evolutions[0][0].picture, 192), float)
    left, top = drawn.figure().width - 24 - whole.shape[1], drawn.figure().height - 24 - whole.shape[0]
    last = pixels[top : top + whole.shape[0], left : left + whole.shape[1]]
    assert (last == whole).all(axis=2).mean() > 0.7  # of the dense network, whose tokens are only outlined
    assert drawn.overview().height > evodeploy.visualize(small_elastic, [PICTURE, PICTURE[::-1]]).overview().height

    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    asked = (tmp_path / "a.png", "-o", tmp_path / "new", "--keep-ratio", "0.2,0.5/0.25")
    assert cli("visualize", small_elastic, *asked)[:2] == (0, f"{tmp_path / 'new' / 'a.png'}\n")
    code, _, err = cli("visualize", small_onnx, *asked, "--force")
    assert (code, "keeps a fixed share of tokens (0.5, 0.5)" in err) == (2, True)


def test_from_the_command_line(cli, small_onnx, small_checkpoint, tmp_path):
    for name in ("a", "b"):
        Image.fromarray(GENERATOR.integers(0, 256, (70, 90, 3), np.uint8)).save(tmp_path / f"{name}.png")
    code, out, err = cli("visualize", small_onnx, tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "new")
    assert code == 0, err
    assert out.splitlines() == [str(tmp_path / "new" / name) for name in ("a.png", "b.png", "overview.png")]
    assert listing(tmp_path / "new") == ["a.png", "b.png", "overview.png"]
    assert cli("visualize", small_onnx, tmp_path / "a.png", "-o", tmp_path / "new")[0] == 2
    assert cli("visualize", small_checkpoint, tmp_path / "a.png", "-o", tmp_path / "new", "--force")[0] == 0
    code, _, err = cli("visualize", small_onnx, tmp_path / "a.png", tmp_path / "a.png", "-o", tmp_path / "x")
    assert (code, (tmp_path / "x").exists()) == (2, False)
    assert "give images of different names" in err
    code, _, err = cli("visualize", small_onnx, tmp_path / "a.png", "-o", tmp_path)
    assert code == 2
    assert "is the input itself" in err
