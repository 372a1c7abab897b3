"""Objects named ``module:Name`` in a configuration."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from accel_trainer.errors import ConfigError, nearest


def import_object(key: str, path: str) -> Any:
    """Import what ``module:Name`` names; modules in the current folder are found.

    Args:
        key: option that held the name, for the error.
        path: the name.

    Raises:
        ConfigError: there is no such module, or it has no such name. An error inside the module keeps its traceback
            as the cause.
    """
    module_name, _, attribute = path.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does; console scripts and launchers do not
    try:
        module = importlib.import_module(module_name)
    except (ImportError, SyntaxError) as error:
        raise ConfigError(key, f"{path!r}: cannot import {module_name!r}: {error}") from error
    if not hasattr(module, attribute):
        raise ConfigError(key, f"{path!r}: {module_name} has no {attribute!r}{nearest(attribute, dir(module))}")
    return getattr(module, attribute)
