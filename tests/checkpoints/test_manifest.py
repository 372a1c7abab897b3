"""A checkpoint is whole or it is none: whatever happens to its files is noticed."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel_trainer.checkpoints import manifest
from accel_trainer.checkpoints.files import digest, finite, read_json, write_json, write_text
from accel_trainer.checkpoints.manifest import problem, write_manifest

FACTS = {"step": 17, "processes": 1, "data_digest": "ab12", "versions": {"torch": "2.13.0"}, "share": 0.1}


def fill(folder: Path) -> Path:
    """Make a folder like a checkpoint's."""
    (folder / "deeper").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(60)))
    (folder / "state.json").write_text('{"step": 17}')
    (folder / "empty").write_bytes(b"")
    (folder / "deeper" / "ödd name.bin").write_bytes(b"x" * 30)
    write_manifest(folder, FACTS)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return fill(tmp_path / "step-00000017")


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("shared") / "step-00000017")


def rewrite(folder: Path, **changes: Any) -> None:
    """Change what the manifest says and give it the digest that fits, as whoever forges one would."""
    content = {**read_json(folder / manifest.NAME), **changes}
    del content["sha256"]
    content["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    write_json(folder / manifest.NAME, content)


def test_a_whole_checkpoint_has_no_problem(folder):
    assert problem(folder) is None
    content = read_json(folder / manifest.NAME)
    assert {name: content[name] for name in FACTS} == FACTS
    assert content["files"]["state.json"] == {"size": 12, "sha256": digest(folder / "state.json")}
    assert set(content["files"]) == {"model.safetensors", "state.json", "empty", "deeper/ödd name.bin"}
    assert problem(folder) is None, "looking changes nothing"


def test_a_copy_elsewhere_is_whole_too(folder, tmp_path):
    assert problem(shutil.copytree(folder, tmp_path / "elsewhere")) is None


def test_a_file_that_is_not_listed_does_no_harm(folder):
    (folder / "notes.txt").write_text("mine")
    assert problem(folder) is None


@pytest.mark.parametrize("name", ["model.safetensors", "empty", "deeper/ödd name.bin"])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    assert problem(folder) == f"{name} is missing"
    (folder / name).mkdir()
    assert problem(folder) == f"{name} is missing"


@pytest.mark.parametrize("kept", [0, 1, 59])
def test_a_truncated_file(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert problem(folder) == f"model.safetensors has {kept} bytes instead of 60"


def test_a_file_that_grew(folder):
    with (folder / "empty").open("ab") as file:
        file.write(b"\0")
    assert problem(folder) == "empty has 1 bytes instead of 0"


@given(data=st.data())
@settings(deadline=None, max_examples=400)
def test_one_flipped_bit_anywhere_is_noticed(shared_folder, data):
    """In any file, the manifest with all it says about the run included."""
    files = [path for path in sorted(shared_folder.rglob("*")) if path.is_file() and path.stat().st_size]
    path = data.draw(st.sampled_from(files))
    whole = path.read_bytes()
    position, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    broken = bytearray(whole)
    broken[position] ^= 1 << bit
    try:
        path.write_bytes(broken)
        assert problem(shared_folder) is not None
    finally:
        path.write_bytes(whole)
    assert problem(shared_folder) is None


@given(data=st.data())
@settings(deadline=None)
def test_a_manifest_cut_short_is_noticed(shared_folder, data):
    path = shared_folder / manifest.NAME
    whole = path.read_bytes()
    kept = data.draw(st.integers(0, len(whole.rstrip()) - 1))
    try:
        path.write_bytes(whole[:kept])
        assert "cannot be read" in str(problem(shared_folder))
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["../secret", "deeper/../../secret", "/etc/passwd"])
def test_a_manifest_names_nothing_outside_its_folder(folder, name):
    secret = folder.parent / "secret"
    secret.write_text("x")
    rewrite(folder, step=18)
    assert problem(folder) is None, "a manifest with a digest that fits is looked through"
    rewrite(folder, files={name: {"size": 1, "sha256": digest(secret)}})
    assert problem(folder) == f"manifest.json names a file outside the folder: {name}"


def test_a_newer_format_is_left_alone(folder):
    rewrite(folder, format=manifest.FORMAT + 1)
    assert problem(folder) == "format 3 is newer than this version reads (2)"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "manifest.json cannot be read: "),
        ("{", "manifest.json cannot be read: "),
        ("[]", "manifest.json lists no files"),
        ("null", "manifest.json lists no files"),
        ("{}", "manifest.json lists no files"),
        ('{"format": 1, "files": []}', "manifest.json lists no files"),
        ('{"format": 1, "files": {}}', "manifest.json lists no files"),
        ('{"format": 1, "files": {"state.json": 3}}', "manifest.json has changed"),
    ],
)
def test_a_manifest_that_is_none(folder, content, said):
    (folder / manifest.NAME).write_text(content)
    assert str(problem(folder)).startswith(said)


def test_a_manifest_that_is_no_text(folder):
    (folder / manifest.NAME).write_bytes(b"\xff\xfe{}")
    assert str(problem(folder)).startswith("manifest.json cannot be read: ")


def test_folders_without_a_manifest(tmp_path):
    (tmp_path / "empty").mkdir()
    assert problem(tmp_path / "empty") == "no manifest.json"
    assert problem(tmp_path / "not there") == "no manifest.json"
    (tmp_path / "a file").write_text("")
    assert str(problem(tmp_path / "a file")).startswith("manifest.json cannot be read: ")


# ---- single files ----------------------------------------------------------------------------------------------------


class _Unreadable:
    """Nothing that JSON could hold."""


@pytest.mark.parametrize("content", [{"a": _Unreadable()}, {"a": {1, 2}}, {(1, 2): 3}])
def test_a_failed_write_leaves_the_old_content(tmp_path, content):
    path = tmp_path / "state.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, content)
    assert read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path], "nothing is left beside it"


def test_a_text_that_cannot_be_encoded_leaves_the_old_content(tmp_path):
    path = tmp_path / "config.yaml"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "state.json").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_json(tmp_path / "state.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["state.json"]
    with pytest.raises(FileNotFoundError):
        write_json(tmp_path / "nowhere" / "state.json", {})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(content=json_values.filter(lambda value: "\\ud" not in json.dumps(value)))
@settings(deadline=None, max_examples=50)
def test_what_was_written_is_read_back(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "there_and_back.json"
    write_json(path, content)
    assert read_json(path) == content


def test_numbers_that_json_does_not_know_become_null(tmp_path):
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [float("inf"), 1.5, (2, float("-inf"))]})
    assert read_json(tmp_path / "a.json") == {"a": None, "b": [None, 1.5, [2, None]]}
    assert finite({"a": 1, "b": "nan", "c": None}) == {"a": 1, "b": "nan", "c": None}
