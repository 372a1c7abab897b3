"""Files that run code when they are unpickled without care, and manifests that fit them.

What they run makes a folder, so that it shows.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from accel_trainer.checkpoints.files import read_json, write_json
from accel_trainer.checkpoints.manifest import NAME, problem, write_manifest


class MakesFolder:
    """Makes a folder while it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


def bare(mark: Path) -> bytes:
    """A pickle as it is."""
    return pickle.dumps(MakesFolder(mark))


def archive(mark: Path) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save({"state": {}, "param_groups": [MakesFolder(mark)]}, buffer)
    return buffer.getvalue()


def legacy(mark: Path) -> bytes:
    """What torch.save wrote before it wrote archives."""
    buffer = io.BytesIO()
    torch.save(MakesFolder(mark), buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def with_pickle(original: Path, content: bytes) -> bytes:
    """Return an archive of torch with another pickle in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(original) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            target.writestr(name, content if name.endswith("/data.pkl") else source.read(name))
    return buffer.getvalue()


def pickle_of(archived: Path) -> bytes:
    """Return the pickle in an archive of torch."""
    with zipfile.ZipFile(archived) as source:
        [name] = [name for name in source.namelist() if name.endswith("/data.pkl")]
        return source.read(name)


def names_from_memo(module: str, name: str, argument: str) -> bytes:
    """A call whose names come out of the memo, where who looks for them beside the call finds none."""
    texts = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() + b"\x940" for text in (module, name, argument))
    return b"\x80\x04" + texts + b"h\x00h\x01\x93h\x02\x85R."


def replace(file: Path, content: bytes) -> None:
    """Put other content into a file, and list it in the manifest; into the manifest itself, just that."""
    file.write_bytes(content)
    if file.name != NAME:
        list_again(file.parent)
        assert problem(file.parent) is None


def list_again(folder: Path) -> None:
    """Write the manifest that fits what the folder holds now."""
    told = read_json(folder / NAME)
    (folder / NAME).unlink()
    write_manifest(folder, {name: told[name] for name in told.keys() - {"format", "files", "sha256"}})


def forge(folder: Path, files: dict[str, Any]) -> None:
    """Write a manifest that lists what it is told, with the digest that fits."""
    content = {**read_json(folder / NAME), "files": files}
    del content["sha256"]
    content["sha256"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    write_json(folder / NAME, content)


def in_process(main: Callable[[list[str]], int], *words: object) -> int:
    """Run a command in this process; the next one finds Accelerate as in a fresh one."""
    code = main([str(word) for word in words])
    if "accelerate.state" in sys.modules:
        state = sys.modules["accelerate.state"]
        state.AcceleratorState._reset_state(reset_partial_state=True)
        state.GradientState._reset_state()
    return code
