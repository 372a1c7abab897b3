"""The list of a checkpoint's files with their sizes and digests: what makes a folder a checkpoint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from accel_trainer.checkpoints.files import digest, finite, read_json, write_json

NAME = "manifest.json"
FORMAT = 1


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """List every file of a folder; ``facts`` say what the checkpoint belongs to."""
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": digest(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    content = {"format": FORMAT, **facts, "files": files}
    write_json(folder / NAME, {**content, "sha256": _own_digest(content)})


def _own_digest(content: dict[str, Any]) -> str:
    """Return the SHA-256 of what a manifest says: what it tells about the run has to be as trustworthy as the files."""
    text = json.dumps(finite(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def problem(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None when every listed file is there and unchanged."""
    try:
        manifest = read_json(folder / NAME)
    except FileNotFoundError:
        return f"no {NAME}"
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        return f"{NAME} cannot be read: {error}"
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict) or not manifest["files"]:
        return f"{NAME} lists no files"
    if not isinstance(manifest.get("format"), int) or manifest["format"] > FORMAT:
        return f"format {manifest.get('format')} is newer than this version reads ({FORMAT})"
    if manifest.pop("sha256", None) != _own_digest(manifest):
        return f"{NAME} has changed (its digest differs)"
    for name, listed in manifest["files"].items():
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            return f"{NAME} names a file outside the folder: {name}"
        path = folder / relative
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != listed.get("size"):
            return f"{name} has {path.stat().st_size} bytes instead of {listed.get('size')}"
        if digest(path) != listed.get("sha256"):
            return f"{name} has changed (its digest differs)"
    return None
