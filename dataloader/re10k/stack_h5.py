"""Frames of clips in one HDF5 file, as the mask-volume method trains on (specs/mask_volume 4.4).

`WIDTHxHEIGHT.h5` holds a data set per scene, named '0', '1', ..., [frames, height, width, 3] uint8, with the
scene's key as its attribute 'key', and groups 'K' (normalised intrinsics [frames, 3, 3]) and 'w2c' ([frames,
4, 4]) with a data set of the same name each. The original keeps cameras in `int.npy`, `ext.npy` and
`scenes.npy`, object arrays that only unpickling opens: they are written as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from common.cli import progress
from common.errors import UserError
from common.files import replacing
from dataloader.re10k.chunks import Example
from dataloader.re10k.examples import scene_of
from dataloader.re10k.pack import Packed
from dataloader.scene import ImageSize, Scene


def stack_h5(
    examples: Iterable[tuple[str, Callable[[], Example]]], out: Path, size: ImageSize, min_frames: int
) -> Packed:
    """Write `out/WIDTHxHEIGHT.h5` and the three lists. An unfinished file of an earlier run is continued.

    size: (height, width) of the photos. min_frames: scenes with fewer are left out, as are unreadable ones.
    """
    import h5py

    path = out / f"{size[1]}x{size[0]}.h5"
    done = Packed()
    if path.is_file():
        raise UserError(f"{path} is there: remove it to make it anew")
    partial = path.with_suffix(".partial")
    out.mkdir(parents=True, exist_ok=True)
    try:
        file = h5py.File(partial, "a")
    except OSError as error:
        raise UserError(f"{partial} is damaged ({error}): remove it and run again") from None
    with file:
        there = {file[name].attrs["key"]: name for name in file if name.isdecimal()}
        todo = list(examples)
        for key, read in progress(todo, "scenes", len(todo), "scene"):
            if key in there:
                done.present += 1
                continue
            try:
                _append(file, _scene(read, size, min_frames))
            except UserError as error:
                done.left_out.append(str(error).removeprefix(", "))
                continue
            done.scenes += 1
        _write_lists(file, out)
    os.replace(partial, path)
    return done


def _scene(read: Callable[[], Example], size: ImageSize, min_frames: int) -> Scene:
    scene = scene_of(read(), "", size, max_fov=180)
    if len(scene) < min_frames:
        raise UserError(f"scene {scene.name} has {len(scene)} frames, fewer than {min_frames}")
    return scene


def _append(file: Any, scene: Scene) -> None:
    """Add a scene; its photos come last, for they mark it as complete."""
    number = str(sum(name.isdecimal() for name in file))
    cameras = scene.cameras()
    pixels = np.stack([record.load() for record in scene.records])
    scale = np.array([[cameras.width], [cameras.height], [1.0]])
    for name, value in (("K", cameras.K.numpy() / scale), ("w2c", cameras.w2c.numpy())):
        group = file.require_group(name)
        if number in group:  # of a run that was killed between the two
            del group[number]
        group[number] = value
    stack = file.create_dataset(
        number, data=pixels, chunks=(1, *pixels.shape[1:]), compression="lzf", shuffle=True
    )
    stack.attrs["key"] = scene.name
    file.flush()


def _write_lists(file: Any, out: Path) -> None:
    count = sum(name.isdecimal() for name in file)
    lists = {
        "int": [file["K"][str(i)][()] for i in range(count)],
        "ext": [file["w2c"][str(i)][()] for i in range(count)],
        "scenes": [file[str(i)].attrs["key"] for i in range(count)],
    }
    for name, values in lists.items():
        column = np.empty(count, dtype=object)
        for i, value in enumerate(values):
            column[i] = value
        with replacing(out / f"{name}.npy") as partial, partial.open("wb") as target:
            np.save(target, column)
