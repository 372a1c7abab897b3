"""Copies of tensors for a writer in the background, in memory that is allocated once."""

from __future__ import annotations

from typing import Any

import torch


class Snapshot:
    """Copies nested mappings and lists of tensors into buffers that serve every later copy as well.

    On a GPU the buffers are pinned host memory, and all copies are under way at once. A copy is valid until the next
    one is taken. Tensors that share memory (tied weights) share it in the copy too.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, torch.Tensor] = {}

    def take(self, tree: Any) -> Any:
        """Return ``tree`` with copies of its tensors on the CPU; what is no tensor is taken as it is.

        Everything is copied when this returns: what is copied from may change then.
        """
        copied: dict[tuple[Any, ...], torch.Tensor] = {}
        result = self._copy(tree, "", copied)
        if any(buffer.is_pinned() for buffer in self._buffers.values()):
            torch.cuda.current_stream().synchronize()
        return result

    def _copy(self, tree: Any, path: str, copied: dict[tuple[Any, ...], torch.Tensor]) -> Any:
        if isinstance(tree, torch.Tensor):
            source = tree.detach()
            place = (source.device, source.data_ptr(), source.shape, source.stride(), source.dtype)
            if source.numel() == 0 or place not in copied:
                copied[place] = self._buffer(path, source)
                copied[place].copy_(source, non_blocking=copied[place].is_pinned())
            return copied[place]
        if isinstance(tree, dict):
            # A plain dict: what else an OrderedDict of weights carries is in none of the files.
            return {key: self._copy(value, f"{path}/{key}", copied) for key, value in tree.items()}
        if isinstance(tree, list | tuple):
            return type(tree)(self._copy(value, f"{path}/{number}", copied) for number, value in enumerate(tree))
        return tree

    def _buffer(self, path: str, like: torch.Tensor) -> torch.Tensor:
        buffer = self._buffers.get(path)
        if buffer is None or buffer.shape != like.shape or buffer.dtype != like.dtype:
            pinned = like.device.type == "cuda"
            buffer = torch.empty(like.shape, dtype=like.dtype, device="cpu", pin_memory=pinned)
            self._buffers[path] = buffer
        return buffer
