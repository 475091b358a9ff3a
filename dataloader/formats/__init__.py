"""File formats of posed photo sets, by name.

`open_scene` reads any of them; `write_scene` writes any of them. Each module has `read(root, images)` and
`write(scene, root)`; importing this package imports none of them.
"""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from types import ModuleType

from common.errors import UserError
from dataloader.scene import Scene

FORMATS = {
    "colmap": "dataloader.formats.colmap",
    "nerfstudio": "dataloader.formats.nerfstudio",
    "mvsnet": "dataloader.formats.mvsnet",
    "llff": "dataloader.formats.llff",
}
MARKS = {  # what a folder of each format holds; where several fit, the first that says most about the scene
    "colmap": ("sparse/0/cameras.*", "sparse/cameras.*"),
    "nerfstudio": ("transforms.json",),
    "mvsnet": ("cams*/*_cam.txt",),
    "llff": ("poses_bounds.npy",),
}


def detect_formats(root: Path) -> list[str]:
    """The formats whose camera files lie in a folder, best first."""
    return [name for name, marks in MARKS.items() if any(any(root.glob(mark)) for mark in marks)]


def detect_format(root: Path) -> str:
    """The best format a folder holds. Raises UserError when there is none."""
    found = detect_formats(root)
    if not found:
        raise UserError(
            f"{root} holds no cameras (sparse/, transforms.json, cams/ or poses_bounds.npy): make them with "
            "scripts/scene.py prepare"
        )
    return found[0]


def format_module(name: str) -> ModuleType:
    """The module of a format. Raises UserError for an unknown name."""
    if name not in FORMATS:
        raise UserError(f"unknown scene format {name!r}: choose from {', '.join(FORMATS)}")
    return importlib.import_module(FORMATS[name])


def open_scene(
    root: str | Path, format: str = "auto", images: str = "images", mesh: str = "", hold_out_every: int = 8
) -> Scene:
    """Open a scene folder, or 'builtin:NAME'.

    format: a key of `FORMATS`, or 'auto'. images: photo folder inside root; one other than 'images' may hold
    resized copies, to which the cameras are scaled. mesh: surface file relative to root; '' takes the only
    mesh of the folder. hold_out_every: every n-th photo is a test view where the scene brings no split
    (`split.json`, or the lists of transforms.json). Raises UserError for anything missing or malformed.
    """
    if not str(root):
        raise UserError("data.root is empty: set it to a scene folder or to builtin:NAME")
    if str(root).startswith("builtin:"):
        from dataloader.builtin import open_builtin

        scene, root = open_builtin(str(root).removeprefix("builtin:")), Path()
    else:
        root = Path(root).expanduser()
        if not root.is_dir():
            raise UserError(f"{root} is not a folder: data.root takes a scene folder or builtin:NAME")
        scene = _read(root, detect_format(root) if format == "auto" else format, images)
    _find_mesh(scene, root, mesh)
    if not scene.splits:
        scene.hold_out(hold_out_every)
    return scene


def _read(root: Path, format: str, images: str) -> Scene:
    from dataloader.formats.shared import read_split

    scene = format_module(format).read(root, images)
    read_split(root, scene)
    return scene


def _find_mesh(scene: Scene, root: Path, mesh: str) -> None:
    """Set the scene's mesh: the file asked for, or the only one in the folder."""
    if mesh:
        if not (root / mesh).is_file():
            raise UserError(
                f"{root / mesh} does not exist: data.mesh takes a mesh file relative to data.root"
            )
        scene.mesh_path, scene.surface = root / mesh, None
    elif scene.surface is None and scene.mesh_path is None:
        found = [path for path in sorted(root.glob("*")) if _is_mesh(path)]
        scene.mesh_path = found[0] if len(found) == 1 else None


def _is_mesh(path: Path) -> bool:
    """Whether a file is an OBJ, or a PLY with faces (point clouds are PLY files too)."""
    suffix = path.suffix.lower()
    if suffix != ".ply" or not path.is_file():
        return suffix == ".obj"
    with path.open("rb") as file:
        header = file.read(4096).partition(b"end_header")[0]
    return b"element face" in header and b"element face 0\n" not in header.replace(b"\r", b"")


def write_scene(scene: Scene, root: str | Path, format: str) -> list[str]:
    """Write a scene as a new folder, or into an empty one; nothing is left there when it fails.

    Returns sentences on what the format cannot hold and was left out. Raises UserError when the format would
    bend the cameras, the folder holds something, or it cannot be written.
    """
    module, root = format_module(format), Path(root).expanduser().absolute()
    partial = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    try:
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise UserError(f"{root} exists and is not an empty folder: choose a new one")
        partial.mkdir(parents=True)
        left_out = module.write(scene, partial)
        os.replace(partial, root)
    except OSError as error:
        raise UserError(f"cannot write {root} ({error.strerror or error}): choose another folder") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return left_out
