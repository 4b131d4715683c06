from __future__ import annotations

import errno
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evodeploy.batch.output import FEATURES, OutputFolder
from evodeploy.errors import UsageError
from evodeploy.locks import draft_of

RUN = {
    "artefact": "a" * 64, "inputs": "b" * 64, "images": 3, "engine": "ort", "keep_ratios": (0.5,), "batch": 1, "top": 5,
    "shard": 3,
}  # fmt: skip
OTHER = RUN | {"artefact": "c" * 64}


def answers(*errors):
    rows = range(len(errors))
    table = pa.table({"shard": [0 for _ in rows], "position": rows, "path": [f"{i}.png" for i in rows]})
    table = table.append_column("row", pa.nulls(len(errors), pa.int64()))
    table = table.append_column("features", pa.array([[float(i)] for i in rows], FEATURES["features"]))
    return table.append_column("error", pa.array(errors, pa.string())).sort_by([("position", "descending")])


@pytest.fixture
def folder(tmp_path):
    return OutputFolder(tmp_path / "out")


def test_a_part_holds_a_shard_in_order_and_errors_lie_in_a_part_of_their_own(folder):
    with folder.claimed(RUN, force=False):
        folder.write(4, answers(None, "broken", None))
        assert folder.is_finished(4, 3)
        assert not folder.is_finished(4, 2)
        assert not folder.is_finished(5, 3)
    predictions = pq.read_table(folder.path / "predictions")
    assert predictions.column_names == ["path", "row", "features"]
    assert predictions["path"].to_pylist() == ["0.png", "2.png"]
    errors = pq.read_table(folder.path / "errors").to_pylist()
    assert errors == [{"path": "1.png", "row": None, "error": "broken"}]
    assert (folder.count("predictions"), folder.count("errors")) == (2, 1)


def test_what_a_kill_leaves_half_done_is_cleared_away(folder):
    with folder.claimed(RUN, force=False):
        folder.write(0, answers(None, "broken"))
        folder.write(1, answers(None, "broken"))
    parts = folder.path / "predictions"
    (parts / "part-00000.parquet").rename(draft_of(parts / "part-00000.parquet"))
    (parts / "part-00001.parquet").write_bytes(b"PAR1")
    with folder.claimed(RUN, force=False):
        assert not folder.is_finished(0, 2)
        assert not folder.is_finished(1, 2)
        left = sorted(str(path.relative_to(folder.path)) for path in folder.path.rglob("*.par*"))
        assert left == ["errors/part-00001.parquet", "predictions/part-00001.parquet"]
        folder.write(1, answers(None, None))
        assert folder.is_finished(1, 2)
        assert folder.count("errors") == 0


def test_a_folder_of_another_run_is_refused_or_discarded(folder):
    with folder.claimed(RUN, force=False):
        folder.write(0, answers(None))
        folder.complete({})
    with (
        pytest.raises(UsageError, match=r"another run \(its artefact: a+, now c+\)"),
        folder.claimed(OTHER, force=False),
    ):
        pass
    assert folder.is_finished(0, 1)
    with folder.claimed(OTHER, force=True):
        assert not folder.is_finished(0, 1)
        assert not (folder.path / "_SUCCESS").exists()


def test_a_folder_of_an_earlier_version_is_of_another_run(folder):
    """Its manifest does not say what rows depend on now."""
    with folder.claimed(RUN, force=False):
        folder.write(0, answers(None))
    now = RUN | {"precision": None, "tf32": True}
    with pytest.raises(UsageError, match=r"another run \(its tf32: None, now True\)"), folder.claimed(now, force=False):
        pass
    with folder.claimed(now, force=True):
        assert not folder.is_finished(0, 1)


@pytest.mark.parametrize("force", [False, True])
def test_other_things_are_never_touched(folder, force):
    (folder.path / "predictions").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds other things"), folder.claimed(RUN, force):
        pass
    assert (folder.path / "predictions").exists()


def claim_is_refused(folder, match):
    before = sorted(folder.path.rglob("*"))
    with pytest.raises(UsageError, match=match), folder.claimed(OTHER, force=True):
        pass
    assert sorted(folder.path.rglob("*")) == before


@pytest.mark.parametrize("manifest", [{"name": "a web app", "icons": []}, RUN | {"artefact": "abc"}, []])
def test_a_folder_with_another_programs_manifest_is_never_discarded(folder, manifest):
    (folder.path / "predictions").mkdir(parents=True)
    (folder.path / "predictions" / "part-00000.parquet").write_text("mine")
    (folder.path / "manifest.json").write_text(json.dumps(manifest))
    claim_is_refused(folder, r"manifest\.json is not a batch run's manifest")


@pytest.mark.parametrize("kind", ["predictions", "errors"])
@pytest.mark.parametrize("name", ["mine.csv", "part-00001.parquet.csv", "part-1.parquet", ".part-00001.parquet.part"])
def test_a_file_that_no_run_writes_keeps_a_run_from_being_discarded(folder, kind, name):
    with folder.claimed(RUN, force=False):
        folder.write(0, answers(None, "broken"))
    (folder.path / kind / name).write_text("mine")
    claim_is_refused(folder, f"{kind}/{name} is not a batch run's file")


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.symlink_to("part-00000.parquet")])
def test_a_folder_or_a_link_by_the_name_of_a_part_keeps_a_run_from_being_discarded(folder, make):
    with folder.claimed(RUN, force=False):
        folder.write(0, answers(None))
    make(folder.path / "predictions" / "part-00001.parquet")
    claim_is_refused(folder, r"part-00001\.parquet is not a batch run's file")


@pytest.mark.parametrize("name", ["predictions", "manifest.json"])
def test_what_lies_behind_a_link_is_never_discarded(folder, name):
    with folder.claimed(RUN, force=False):
        folder.write(0, answers(None))
    moved = (folder.path / name).rename(folder.path.parent / name)
    (folder.path / name).symlink_to(moved)
    claim_is_refused(folder, f"{name} is not a batch run's")
    assert moved.exists()


def test_two_runs_do_not_write_to_one_folder(folder):
    first = folder.claimed(RUN, force=False)
    with first, pytest.raises(UsageError, match="another run is writing"), folder.claimed(RUN, force=False):
        pass
    with folder.claimed(RUN, force=False):
        pass


def test_a_folder_is_written_where_its_file_system_offers_no_locks(folder, monkeypatch):
    def refuse(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with folder.claimed(RUN, force=False):
        folder.write(0, answers(None))
    assert folder.is_finished(0, 1)


def test_an_error_of_the_run_is_not_taken_for_another_run(folder):
    with pytest.raises(BlockingIOError), folder.claimed(RUN, force=False):
        raise BlockingIOError


@pytest.mark.parametrize("text", ["[", "[" * 100_000, '{"artefact": ' * 100_000, "[]", "3", "NaN", '{"a": "\\ud800"}'])
def test_a_manifest_that_is_damaged_or_of_any_other_json_is_said_to_be_none(folder, text):
    folder.path.mkdir()
    (folder.path / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match="not a batch run's manifest"), folder.claimed(RUN, force=False):
        pass


def test_what_a_manifest_says_is_shown_without_control_characters(folder):
    folder.path.mkdir()
    (folder.path / "manifest.json").write_text(json.dumps(RUN | {"engine": "\x1b[2J" + "x" * 900}))
    with pytest.raises(UsageError, match=r"its engine: \\x1b\[2Jx+…, now") as raised, folder.claimed(RUN, force=False):
        pass
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("name", [".notes.part", ".part-00000.parquet.1234.part", "part-00000.parquet.12345678.part"])
def test_a_file_of_the_user_that_looks_like_a_draft_is_kept(folder, name):
    folder.path.mkdir()
    (folder.path / name).write_text("mine")
    with pytest.raises(UsageError, match=f"holds other things \\({name}\\)"), folder.claimed(RUN, force=True):
        pass
    (folder.path / name).rename(folder.path.parent / name)
    with folder.claimed(RUN, force=False):
        (folder.path / "predictions" / name).write_text("mine")
    with folder.claimed(RUN, force=False):
        assert (folder.path / "predictions" / name).read_text() == "mine"


def test_a_folder_by_the_name_of_a_draft_is_no_draft(folder):
    with folder.claimed(RUN, force=False):
        made = [folder.path / kind / ".part-00000.parquet.evodeploy-draft" for kind in ("predictions", "errors")]
        for each in made:
            each.mkdir()
    with folder.claimed(RUN, force=False):
        assert all(each.is_dir() for each in made)
