"""Archives of clips for training, numbered in a folder (specs/mask_volume 4.2)."""

from __future__ import annotations

import re
from pathlib import Path

from dataloader.formats.shared import read_json, write_json
from dataloader.rig.archives import write_archive
from dataloader.rig.clip import Clip
from dataloader.scene import ImageSize

LIST = "packed.json"  # archive -> clip


def pack_into(clip: Clip, source: Path, folder: Path, size: ImageSize | None = None) -> tuple[Path, bool]:
    """Write a clip as the next free `folder/sceneNNN.h5`, unless it is there. Returns the file, and whether
    it was written now.

    source: where the clip was opened from; `packed.json` lists what each archive was made of. Raises
    UserError as `write_archive`.
    """
    listed = read_json(folder / LIST) if (folder / LIST).is_file() else {}
    entry = {"clip": str(source.resolve()), "size": size and list(size)}
    for name, packed in listed.items():
        if packed == entry and (folder / name).is_file():
            return folder / name, False
    path = folder / f"scene{_next_number(folder):03d}.h5"
    write_archive(clip, path, size)
    write_json({**listed, path.name: entry}, folder / LIST)
    return path, True


def _next_number(folder: Path) -> int:
    found = [re.fullmatch(r"scene(\d+)\.h5", path.name) for path in folder.glob("scene*.h5")]
    return max((int(match[1]) + 1 for match in found if match), default=0)
