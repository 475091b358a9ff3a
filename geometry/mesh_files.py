"""Mesh files: OBJ and PLY in and out, other formats in through trimesh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.errors import UserError
from common.files import replacing
from geometry.meshes import Mesh
from geometry.obj_files import ObjArrays, fan, read_obj, write_obj

_UV_NAMES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))
_FACE_LISTS = ("vertex_indices", "vertex_index")


@np.errstate(over="ignore", invalid="ignore")  # broken files hold absurd numbers; what matters is checked
def read_mesh(path: Path) -> Mesh:
    """Read a triangle mesh from .obj, .ply, or a format that trimesh reads (.glb, .stl, .off, ...).

    vertices float64 (large coordinates lose nothing), colors and uv float32 where the file has them. Vertices
    and faces keep the file's order and are never merged; polygons become the fan (0, 1, 2), (0, 2, 3), ... in
    place. Where an OBJ gives a vertex several texture coordinates, the vertex is repeated behind the file's
    own vertices (`geometry.obj_files.read_obj`); the texture coordinates that a PLY lists per face are not
    read, nor are textures, normals and alpha.

    Raises UserError when the file is missing, unreadable or cut off, has no face, a vertex that is not
    finite, or a face index that points at nothing.
    """
    path = Path(path)
    readers = {".obj": read_obj, ".ply": _read_ply}
    try:
        arrays = readers.get(path.suffix.lower(), _read_other)(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: give the mesh file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
    _check(path, arrays)
    return Mesh(
        torch.from_numpy(arrays.vertices),
        torch.from_numpy(arrays.faces),
        colors=None if arrays.colors is None else torch.from_numpy(arrays.colors.astype(np.float32)),
        uv=None if arrays.uv is None else torch.from_numpy(arrays.uv.astype(np.float32)),
    )


def write_mesh(mesh: Mesh, path: Path) -> None:
    """Write a mesh as .ply or .obj.

    PLY: binary little-endian; float coordinates when they hold the vertices exactly, else double; colours as
    uchar red, green, blue and alpha = 255 (rounded to 8 bits); uv as float s, t; int triangles. OBJ: see
    `geometry.obj_files.write_obj`; vertices and colours read back exactly. Raises UserError for any other
    suffix or an unwritable place.
    """
    path = Path(path)
    writers = {".obj": write_obj, ".ply": _write_ply}
    if path.suffix.lower() not in writers:
        raise UserError(f"{path}: meshes are written as .ply or .obj, so use one of these endings")
    arrays = ObjArrays(
        _array(mesh.vertices),
        _array(mesh.faces).astype(np.int64),
        colors=None if mesh.colors is None else _array(mesh.colors),
        uv=None if mesh.uv is None else _array(mesh.uv),
    )
    with replacing(path) as partial, partial.open("wb") as file:
        writers[path.suffix.lower()](file, arrays)


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.detach().cpu().numpy()


def _check(path: Path, arrays: ObjArrays) -> None:
    """What every format must satisfy (the OBJ reader has named the line already)."""
    if not len(arrays.faces):
        raise UserError(f"{path} holds no faces: a mesh is needed, not a point cloud")
    finite = np.isfinite(arrays.vertices).all(axis=1)
    if not finite.all():
        raise UserError(f"{path}: vertex {np.argmin(finite)} is not finite; repair the mesh")
    outside = ((arrays.faces < 0) | (arrays.faces >= len(arrays.vertices))).any(axis=1)
    if outside.any():
        raise UserError(
            f"{path}: triangle {np.argmax(outside)} points at a vertex beyond the {len(arrays.vertices)} of "
            f"the file; is the file cut off?"
        )


def _read_ply(path: Path) -> ObjArrays:
    """ASCII or binary PLY of either byte order: positions, colours of any type, uv, and faces of any size."""
    import plyfile

    try:
        try:  # triangles only, the usual case, map to memory at once; otherwise faces are read one by one
            lengths = {"face": dict.fromkeys(_FACE_LISTS, 3)}
            ply = plyfile.PlyData.read(str(path), known_list_len=lengths)
        except plyfile.PlyElementParseError:
            ply = plyfile.PlyData.read(str(path))
        return _from_ply(path, {element.name: element.data for element in ply})
    except (plyfile.PlyParseError, ValueError, OverflowError, MemoryError) as error:
        raise UserError(f"{path} is not a readable PLY file ({error}); is the file cut off?") from None


def _from_ply(path: Path, elements: dict[str, NDArray[Any]]) -> ObjArrays:
    vertex, face = elements.get("vertex"), elements.get("face")
    if vertex is None or not {"x", "y", "z"} <= set(vertex.dtype.names or ()):
        raise UserError(f"{path} holds no vertices with x, y and z: is it a mesh?")
    lists = [name for name in _FACE_LISTS if face is not None and name in (face.dtype.names or ())]
    if face is None or not lists:
        raise UserError(f"{path} holds no faces: a mesh is needed, not a point cloud")
    return ObjArrays(
        _columns(vertex, ("x", "y", "z")),
        _triangles(path, face[lists[0]]),
        colors=_ply_colors(vertex),
        uv=next((_columns(vertex, names) for names in _UV_NAMES if _has(vertex, names)), None),
    )


def _has(data: NDArray[Any], names: tuple[str, ...]) -> bool:
    return set(names) <= set(data.dtype.names or ())


def _columns(data: NDArray[Any], names: tuple[str, ...]) -> NDArray[np.float64]:
    return np.stack([data[name].astype(np.float64) for name in names], axis=1)


def _ply_colors(vertex: NDArray[Any]) -> NDArray[np.float64] | None:
    """Colours in [0, 1]: integers are divided by the largest of their type, floats are taken as they are."""
    names = ("red", "green", "blue")
    if not _has(vertex, names):
        return None
    dtype = vertex.dtype["red"]
    largest = np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1
    return np.clip(_columns(vertex, names) / largest, 0, 1)


def _triangles(path: Path, polygons: NDArray[Any]) -> NDArray[np.int64]:
    """[F, 3] from a list property: [F, 3] integers, or [P] arrays of any length."""
    if polygons.dtype != object:
        return polygons.astype(np.int64)
    sizes = np.array([len(polygon) for polygon in polygons], dtype=np.int64)
    if not sizes.size:
        return np.empty((0, 3), dtype=np.int64)
    if sizes.min() < 3:
        raise UserError(f"{path}: face {np.argmin(sizes)} has fewer than 3 corners; export the mesh again")
    return np.concatenate(polygons).astype(np.int64)[fan(sizes)]


def _read_other(path: Path) -> ObjArrays:
    """Any format trimesh reads; the parts of a scene become one mesh."""
    import trimesh

    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        mesh = trimesh.load_mesh(str(path), process=False)
    except Exception as error:  # each of trimesh's parsers fails in its own way on a broken file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is not a readable mesh ({reason}); use .ply or .obj") from None
    faces = np.asarray(mesh.faces, dtype=np.int64).reshape(-1, 3)
    visual: Any = mesh.visual
    colored = visual.kind == "vertex"
    return ObjArrays(
        np.array(mesh.vertices, dtype=np.float64),
        faces.copy(),
        colors=np.asarray(visual.vertex_colors)[:, :3] / 255 if colored else None,
        uv=np.array(visual.uv, dtype=np.float64) if getattr(visual, "uv", None) is not None else None,
    )


def _write_ply(file: Any, arrays: ObjArrays) -> None:
    """Vertices and triangles as two packed tables behind the header.

    plyfile writes lists row by row and trimesh rounds every vertex to float32, so neither serves here.
    """
    single = arrays.vertices.astype(np.float32)
    name, kind = ("float", "<f4") if np.array_equal(single, arrays.vertices) else ("double", "<f8")
    columns = [(axis, name, kind, arrays.vertices[:, i]) for i, axis in enumerate("xyz")]
    if arrays.colors is not None:
        bytes_ = np.rint(np.clip(arrays.colors, 0, 1) * 255)
        columns += [
            (channel, "uchar", "u1", bytes_[:, i]) for i, channel in enumerate(("red", "green", "blue"))
        ]
        columns += [("alpha", "uchar", "u1", np.full(len(single), 255))]
    if arrays.uv is not None:
        columns += [(axis, "float", "<f4", arrays.uv[:, i]) for i, axis in enumerate("st")]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(single)}"]
    header += [f"property {name} {axis}" for axis, name, _, _ in columns]
    header += [f"element face {len(arrays.faces)}", "property list uchar int vertex_indices", "end_header\n"]
    vertices = np.empty(len(single), dtype=[(axis, kind) for axis, _, kind, _ in columns])
    for axis, _, _, values in columns:
        vertices[axis] = values
    faces = np.empty(len(arrays.faces), dtype=[("count", "u1"), ("corners", "<i4", (3,))])
    faces["count"], faces["corners"] = 3, arrays.faces
    file.write("\n".join(header).encode("ascii") + vertices.tobytes() + faces.tobytes())
