"""Coloured meshes for viewers: binary glTF 2.0 (.glb), which browsers and desktop viewers open.

Made to be looked at, not to be read back (`geometry.mesh_files` keeps coordinates and colours as they are).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.files import replacing
from geometry.meshes import Mesh

_FLOAT, _USHORT, _UINT = 5126, 5123, 5125  # component types of the format
_VERTICES, _INDICES = 34962, 34963  # kinds of buffers
_JSON, _BIN = b"JSON", b"BIN\0"  # kinds of chunks


def write_glb(mesh: Mesh, path: Path) -> None:
    """Write a mesh of an OpenCV world (x right, y down, z forward) upright: glTF has y up and z backwards.

    Coordinates become float32, with y and z negated. The colours, which are sRGB as in photos, are stored as
    the format wants them, linear, in 16 bits; they are shown as they are, without light and from both sides.
    Raises ValueError for a mesh without faces or colours, UserError when the file cannot be written.
    """
    if mesh.colors is None or not len(mesh.faces):
        raise ValueError("a .glb needs a mesh with faces and vertex colours")
    flip = np.array([1, -1, -1], dtype=np.float32)
    positions = mesh.vertices.detach().cpu().numpy().astype(np.float32) * flip
    blocks: list[NDArray[Any]] = [
        positions,
        _linear_colors(mesh.colors.detach().cpu().numpy()),
        mesh.faces.cpu().numpy().astype("<u4"),
    ]
    body = b"".join(block.tobytes() for block in blocks)
    header = json.dumps(_description(positions, blocks), separators=(",", ":")).encode()
    header += b" " * (-len(header) % 4)
    chunks = _chunk(_JSON, header) + _chunk(_BIN, body)
    with replacing(Path(path)) as partial:
        partial.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


def read_bounds(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The corners [3] and [3] of the box around the mesh of a file of `write_glb`, in glTF's axes."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<12xI4x", file.read(20))
        positions = json.loads(file.read(length))["accessors"][0]
    return np.array(positions["min"]), np.array(positions["max"])


def _linear_colors(srgb: NDArray[Any]) -> NDArray[np.uint16]:
    """[V, 3] in [0, 1], sRGB (IEC 61966-2-1) -> [V, 4] uint16, linear and opaque."""
    srgb = srgb.astype(np.float64).clip(0, 1)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    colors = np.full((len(srgb), 4), 65535, dtype="<u2")
    colors[:, :3] = (linear * 65535).round()
    return colors


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack("<I4s", len(content), kind) + content


def _description(positions: NDArray[np.float32], blocks: list[NDArray[Any]]) -> dict[str, Any]:
    """The JSON part: one scene with one mesh, whose vertices, colours and triangles follow each other."""
    starts = np.cumsum([0, *(block.nbytes for block in blocks)]).tolist()
    targets = (_VERTICES, _VERTICES, _INDICES)
    bounds = {"min": positions.min(0).tolist(), "max": positions.max(0).tolist()}
    return {
        "asset": {"version": "2.0", "generator": "parallax"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [
            {"primitives": [{"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2, "material": 0}]}
        ],
        "materials": [{"extensions": {"KHR_materials_unlit": {}}, "doubleSided": True}],
        "accessors": [
            {"bufferView": 0, "componentType": _FLOAT, "count": len(positions), "type": "VEC3", **bounds},
            {
                "bufferView": 1,
                "componentType": _USHORT,
                "normalized": True,
                "count": len(positions),
                "type": "VEC4",
            },
            {"bufferView": 2, "componentType": _UINT, "count": blocks[2].size, "type": "SCALAR"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": block.nbytes, "target": target}
            for start, block, target in zip(starts, blocks, targets, strict=False)
        ],
        "buffers": [{"byteLength": starts[-1]}],
    }
