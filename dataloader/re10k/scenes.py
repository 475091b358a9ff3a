"""RealEstate10K chunks as a set of scenes: several roots, one chunk open at a time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from common.errors import UserError
from dataloader.re10k.chunks import Example, read_chunk
from dataloader.re10k.examples import MAX_FOV, latents_of, scene_of
from dataloader.re10k.roots import Root, agreed_meta, default_cache
from dataloader.scene import ImageSize, Scene

_OPEN_CHUNKS = 2  # kept in memory per process, about 100 MB each


class Re10kScenes:
    """The scenes of a split of one or more roots, chunk after chunk in the order of their names.

    roots: folders, or `s3://` and `http(s)://` addresses, whose `meta.json` must agree. max_fov: degrees; a
    scene with a wider view is unreadable. cache: for copies of remote chunks. open_chunks: how many stay in
    memory. A set may be sent to loader processes: each opens chunks of its own.
    """

    def __init__(
        self,
        roots: Sequence[str | Path],
        split: str,
        max_fov: float = MAX_FOV,
        cache: Path | None = None,
        open_chunks: int = _OPEN_CHUNKS,
    ) -> None:
        if not roots:
            raise UserError("data.root is empty: name a folder of RealEstate10K chunks")
        self._roots = [Root(str(root), cache or default_cache()) for root in roots]
        self.meta = agreed_meta(self._roots)
        self.expected = expected_size(self.meta, self._roots[0].place)
        self.max_fov, self._open_chunks = max_fov, open_chunks
        self.name = f"{','.join(root.place for root in self._roots)} {split}"
        self._keys: list[str] = []
        self._chunks: list[tuple[Root, str]] = []  # root and path inside it
        self._chunk_of: list[int] = []
        for root in self._roots:
            self._add(root, split)
        self._numbers = {key: i for i, key in enumerate(self._keys)}
        if len(self._numbers) < len(self._keys):
            twice = next(key for i, key in enumerate(self._keys) if self._numbers[key] != i)
            raise UserError(f"{self.name}: scene {twice} is in two roots: leave one of them out")
        self._reset()

    def _add(self, root: Root, split: str) -> None:
        """Append the scenes of a root, ordered by chunk."""
        index = root.index(split)
        if not index:
            raise UserError(f"{root.place}/{split}/index.json names no scene")
        suffix = root.suffix(split, min(index.values()))
        chunks = sorted({Path(name).stem for name in index.values()})
        root.check_chunks(split, [chunk + suffix for chunk in chunks])
        for chunk in chunks:
            keys = [key for key, name in index.items() if Path(name).stem == chunk]
            self._keys += keys
            self._chunk_of += [len(self._chunks)] * len(keys)
            self._chunks.append((root, f"{split}/{chunk}{suffix}"))

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._read: OrderedDict[int, dict[str, Example]] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_read")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()

    @property
    def chunk_sizes(self) -> Sequence[int]:
        """Scenes per chunk."""
        sizes = [0] * len(self._chunks)
        for chunk in self._chunk_of:
            sizes[chunk] += 1
        return sizes

    def __len__(self) -> int:
        return len(self._keys)

    def key(self, index: int) -> str:
        return self._keys[index]

    def index_of(self, key: str) -> int | None:
        """The number of a scene; None where the set has none of that key."""
        return self._numbers.get(key)

    def scene(self, index: int) -> Scene:
        """Scene `index`, its photos encoded. Raises UserError for one that cannot be used (`scene_of`)."""
        example, source = self.example(index)
        return scene_of(example, source, self.expected, self.max_fov)

    def latents(self, index: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [N, C, h, w] of the frames' VAE posterior (bfloat16).

        Raises UserError where the set was not pre-encoded.
        """
        return latents_of(*self.example(index))

    def example(self, index: int) -> tuple[Example, str]:
        """What the chunk holds of a scene, and what messages call the chunk."""
        number = self._chunk_of[index]
        root, path = self._chunks[number]
        source = f"{root.place.rstrip('/')}/{path}"
        with self._lock:
            chunk = self._open(number)
        if self._keys[index] not in chunk:
            raise UserError(
                f"{source} lacks scene {self._keys[index]}, which index.json puts there: index again"
            )
        return chunk[self._keys[index]], source

    def _open(self, number: int) -> dict[str, Example]:
        if number in self._read:
            self._read.move_to_end(number)
            return self._read[number]
        while len(self._read) >= max(1, self._open_chunks):
            self._read.popitem(last=False)
        root, path = self._chunks[number]
        self._read[number] = {str(scene["key"]): scene for scene in read_chunk(root.file(*path.split("/")))}
        return self._read[number]


def expected_size(meta: dict[str, Any], place: str) -> ImageSize | None:
    """(height, width) that `meta.json` promises. Raises UserError where it is malformed."""
    shape = meta.get("expected_shape")
    if shape is None:
        return None
    if not (isinstance(shape, list) and len(shape) == 3 and all(isinstance(n, int) and n > 0 for n in shape)):
        raise UserError(f"{place}/meta.json: expected_shape is {shape!r}, write it as [3, height, width]")
    return shape[1], shape[2]
