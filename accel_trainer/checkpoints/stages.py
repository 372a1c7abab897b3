"""The moments of a save, by name, so that tests can end a process at each of them."""

from __future__ import annotations

STAGES = (
    "begun",  # nothing is on the disk yet
    "staged",  # the staging folder is made
    "states written",  # weights, optimizer, random states
    "own state written",  # JSON files beside them
    "listed",  # the manifest
    "synced",  # everything in the staging folder is on the disk
    "in place",  # renamed; the rename itself may not be on the disk
    "committed",  # the rename is on the disk
    "condemned",  # an older checkpoint was renamed to be removed
    "rotated",  # it is gone
)
"""In order; with nothing to remove the last two are left out."""


def reached(stage: str) -> None:
    """Mark a moment; does nothing."""
    assert stage in STAGES
