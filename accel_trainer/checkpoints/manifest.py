"""The list of a checkpoint's files with their sizes and digests: what makes a folder a checkpoint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path, PurePosixPath
from typing import Any

from accel_trainer.checkpoints.files import digest, finite, read_json, write_json

NAME = "manifest.json"
FORMAT = 2
"""Format 1 told less about the run: no epoch, metric, config or experiment. It is read as before."""


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """List every file of a folder; ``facts`` say what the checkpoint belongs to."""
    files = {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": digest(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    rewrite_manifest(folder, {"format": FORMAT, **facts, "files": files})


def rewrite_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Replace a manifest by one that says something else of the same files; at no instant there is none."""
    write_json(folder / NAME, {**content, "sha256": _own_digest(content)})


def read_manifest(folder: Path) -> tuple[dict[str, Any], str | None]:
    """Return what a manifest says, and what is wrong with it, if anything; the listed files are not looked at."""
    try:
        manifest = read_json(folder / NAME)
    except FileNotFoundError:
        return {}, f"no {NAME}"
    except (OSError, ValueError, RecursionError) as error:
        return {}, f"{NAME} cannot be read: {error}"
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict) or not manifest["files"]:
        return {}, f"{NAME} lists no files"
    if not isinstance(manifest.get("format"), int) or manifest["format"] > FORMAT:
        return {}, f"format {manifest.get('format')} is newer than this version reads ({FORMAT})"
    if manifest.pop("sha256", None) != _own_digest(manifest):
        return {}, f"{NAME} has changed (its digest differs)"
    return manifest, None


def problem(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint, or None when every listed file is there and unchanged."""
    manifest, trouble = read_manifest(folder)
    if trouble is not None:
        return trouble
    for name, listed in manifest["files"].items():
        if not isinstance(listed, dict):
            return f"{NAME} says nothing of {name}"
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            return f"{NAME} names a file outside the folder: {name}"
        path = folder / relative
        try:
            if not path.resolve().is_relative_to(folder.resolve()):
                return f"{name} leads outside the folder"
            if not path.is_file():
                return f"{name} is missing"
            size, found = path.stat().st_size, digest(path)
        except (OSError, ValueError) as error:
            return f"{name} cannot be read: {error}"
        if size != listed.get("size"):
            return f"{name} has {size} bytes instead of {listed.get('size')}"
        if found != listed.get("sha256"):
            return f"{name} has changed (its digest differs)"
    return None


def _own_digest(content: dict[str, Any]) -> str:
    """Return the SHA-256 of what a manifest says: what it tells about the run has to be as trustworthy as the files."""
    text = json.dumps(finite(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
