"""Scenes as the official code converts them: `metadata/KEY.json`, `images/KEY/00000.png`, `full_list.txt`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from dataloader.formats.shared import checked_camera, pinhole_matrix, read_json, read_text
from dataloader.images import image_size
from dataloader.re10k.examples import frame_name
from dataloader.scene import Record, Scene

LIST = "full_list.txt"


class OfficialScenes:
    """The scenes that a `full_list.txt` names, one metadata file per line.

    folder: holds the list. The absolute paths in list and metadata may be of another machine: a file is also
    looked for below the folder, by the last parts of its path.
    """

    chunk_sizes: Sequence[int] | None = None

    def __init__(self, folder: Path) -> None:
        self._folder, self.name = folder, str(folder / LIST)
        lines = (line.strip() for line in read_text(folder / LIST).splitlines())
        self._files = [Path(line) for line in lines if line]
        if not self._files:
            raise UserError(f"{folder / LIST} names no scene: convert the data again")

    def __len__(self) -> int:
        return len(self._files)

    def key(self, index: int) -> str:
        return self._files[index].stem

    def scene(self, index: int) -> Scene:
        """Scene `index`. Raises UserError where its metadata or a photo is missing or malformed."""
        path = self._here(self._files[index], 2)
        meta = read_json(path)
        frames = meta.get("frames")
        if not isinstance(frames, list) or not frames:
            raise UserError(f"{path} has no 'frames': convert the data again")
        records = [self._record(frame, i, f"{path}, frame {i}") for i, frame in enumerate(frames)]
        return Scene(str(meta.get("scene_name", path.stem)), records)

    def _record(self, frame: dict[str, Any], index: int, source: str) -> Record:
        try:
            K = pinhole_matrix(*(float(value) for value in frame["fxfycxcy"]))
            c2w = np.linalg.inv(np.array(frame["w2c"], dtype=np.float64).reshape(4, 4)).astype(np.float64)
            photo = self._here(Path(frame["image_path"]), 3)
        except (KeyError, TypeError, ValueError, np.linalg.LinAlgError) as error:
            raise UserError(f"{source} is malformed ({error}): convert the data again") from None
        camera = checked_camera(K, c2w, image_size(photo), source)
        return Record(frame_name(index), camera, photo)

    def _here(self, path: Path, parts: int) -> Path:
        """The path, or the same below the folder: `parts` names at its end are kept."""
        moved = self._folder.joinpath(*path.parts[-parts:])
        return moved if moved.is_file() and not path.is_file() else path
