"""Wavefront OBJ text, read in vectorised blocks and written so that numbers come back exactly."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError

log = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 24  # text parsed at a time: keeps the temporaries near 300 MB whatever the file's size
_NEWLINE, _SLASH, _SPACE = 10, 47, 32
_JOINED = b"\v"

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@dataclass
class ObjArrays:
    """The triangles of an OBJ file.

    vertices: [V, 3]. faces: [F, 3] vertex indices. colors: [V, 3] in [0, 1]. uv: [V, 2].
    """

    vertices: Floats
    faces: Integers
    colors: Floats | None
    uv: Floats | None


@dataclass
class _Lines:
    """The lines of one kind in a block: their text as one array, and where each line's words are.

    text: bytes with the keyword blanked out. numbers: [L] line numbers in the file. words: [L] words per
    line. starts: [W] where each word begins in `text`.
    """

    text: Bytes
    numbers: Integers
    words: Integers
    starts: Integers


@dataclass
class _Corners:
    """Face corners in file order. vertex, uv: [C] 0-based indices (uv -1 where the file gives none)."""

    vertex: Integers
    uv: Integers


@dataclass
class _Parts:
    """What has been read so far, one array per block."""

    positions: list[Floats] = field(default_factory=list)
    colors: list[Floats] = field(default_factory=list)  # empty blocks where a vertex had no colour
    texture: list[Floats] = field(default_factory=list)
    corners: list[_Corners] = field(default_factory=list)
    sizes: list[Integers] = field(default_factory=list)  # corners per face
    face_lines: list[Integers] = field(default_factory=list)
    vertex_count: int = 0
    texture_count: int = 0


def read_obj(path: Path) -> ObjArrays:
    """Read the vertices, vertex colours, texture coordinates and faces of an OBJ file.

    Vertices keep the file's order and faces too; a polygon (0, 1, 2, 3, ...) becomes the fan (0, 1, 2),
    (0, 2, 3), ... in its place. Colours are the three numbers behind the position (0..1, or 0..255 when one
    exceeds 1) and are dropped unless every vertex has them. A vertex whose corners have several texture
    coordinates keeps the first one used and is repeated, behind the file's own vertices, for each other one;
    uv are dropped when some corner has none. Normals, groups, materials, lines and points are ignored.

    Raises UserError naming the line that cannot be read, or saying what the file lacks.
    """
    parts = _Parts()
    first_line = 1
    with path.open("rb") as file:
        for block in _blocks(file):
            text = np.frombuffer(re.sub(rb"#[^\n]*", b"", block), dtype=np.uint8)
            _read_block(path, parts, text, first_line)
            first_line += block.count(b"\n") + block.count(_JOINED)
    return _assemble(path, parts)


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Blocks of whole lines of about _BLOCK_BYTES, each ending in a newline, without byte-order mark.

    Lines continued by a backslash are joined by _JOINED, which is white space too.
    """
    file.seek(3 if file.read(3) == b"\xef\xbb\xbf" else 0)
    while block := file.read(_BLOCK_BYTES):
        block += file.readline()
        while block.endswith((b"\\\n", b"\\\r\n")):
            block += file.readline()
        yield re.sub(rb"\\\r?\n", _JOINED, block).removesuffix(b"\n") + b"\n"


def _read_block(path: Path, parts: _Parts, text: Bytes, first_line: int) -> None:
    """Parse the `v`, `vt` and `f` lines of one block and append what they hold to `parts`."""
    ends = np.flatnonzero(text == _NEWLINE)
    blank = text <= _SPACE
    starts = np.flatnonzero(~blank & np.concatenate([[True], blank[:-1]]))
    line_of_word = np.searchsorted(ends, starts)
    used, first_word = np.unique(line_of_word, return_index=True)
    keyword_at = starts[first_word]
    first, second, third = (text[np.minimum(keyword_at + i, text.size - 1)] for i in range(3))
    is_v = first == ord("v")
    kinds = {
        "v": is_v & (second <= _SPACE),
        "vt": is_v & (second == ord("t")) & (third <= _SPACE),
        "f": (first == ord("f")) & (second <= _SPACE),
    }
    before = np.concatenate([[0], np.cumsum(kinds["v"])])[: used.size] + parts.vertex_count
    texture_before = np.concatenate([[0], np.cumsum(kinds["vt"])])[: used.size] + parts.texture_count
    line_starts = np.concatenate([[0], ends[:-1] + 1])
    breaks = np.flatnonzero((text == _NEWLINE) | (text == _JOINED[0]))
    line_numbers = np.searchsorted(breaks, line_starts) + first_line
    for kind, chosen in kinds.items():
        if not chosen.any():
            continue
        rows = used[chosen]
        lines = _select(
            text, line_starts[rows], ends[rows] + 1, line_numbers[rows], keyword_at[chosen], len(kind)
        )
        if kind == "v":
            _read_vertices(path, parts, lines)
        elif kind == "vt":
            _read_texture(path, parts, lines)
        else:
            _read_faces(path, parts, lines, before[chosen], texture_before[chosen])


def _select(
    text: Bytes, begin: Integers, end: Integers, numbers: Integers, keyword_at: Integers, keyword_length: int
) -> _Lines:
    """Copy the lines [begin, end) of a block, blanking the keyword at the head of each."""
    lengths = end - begin
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    chosen = np.zeros(text.size + 1, dtype=np.int8)
    chosen[begin] += 1
    chosen[end] -= 1
    copy = text[np.cumsum(chosen[:-1], dtype=np.int8).view(bool)]
    for i in range(keyword_length):
        copy[keyword_at - begin + offsets + i] = _SPACE
    blank = copy <= _SPACE
    is_start = ~blank & np.concatenate([[True], blank[:-1]])
    words = np.add.reduceat(is_start, offsets, dtype=np.int64)
    return _Lines(copy, numbers, words, np.flatnonzero(is_start))


def _read_numbers(path: Path, lines: _Lines, kind: type, expected: int) -> NDArray[Any]:
    """Every number of the lines, in order. Raises UserError at the first word that is not a number."""
    values: NDArray[Any]
    try:
        values = np.fromstring(lines.text.tobytes(), dtype=kind, sep=" ")
    except ValueError:
        values = np.empty(0, dtype=kind)
    if values.size != expected:
        raise _bad_word(path, lines, kind)
    return values


def _bad_word(path: Path, lines: _Lines, kind: type) -> UserError:
    """The error for lines whose numbers do not add up: finds the first word that is no number."""
    for number, line in zip(lines.numbers, lines.text.tobytes().splitlines(), strict=False):
        for word in line.split():
            try:
                kind(word)
            except ValueError:
                shown = word.decode("latin-1")[:40]
                return UserError(f"{path}, line {number}: {shown!r} is not a number; export the mesh again")
    return UserError(f"{path}: lines {lines.numbers[0]} to {lines.numbers[-1]} hold malformed numbers")


def _read_vertices(path: Path, parts: _Parts, lines: _Lines) -> None:
    """`v x y z [w]` or `v x y z r g b [a]`; w and a are ignored."""
    wrong = ~np.isin(lines.words, (3, 4, 6, 7))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise UserError(
            f"{path}, line {lines.numbers[first]}: a vertex has 3 coordinates (and 3 colours), not "
            f"{lines.words[first]} numbers; is the file cut off?"
        )
    values = _read_numbers(path, lines, float, int(lines.words.sum()))
    at = np.cumsum(lines.words) - lines.words
    coloured = bool((lines.words >= 6).all())
    columns = values[at[:, None] + np.arange(6 if coloured else 3)]
    finite = np.isfinite(columns).all(1)
    if not finite.all():
        line = lines.numbers[np.argmin(finite)]
        raise UserError(f"{path}, line {line}: the vertex is not finite; repair the mesh")
    parts.positions.append(columns[:, :3])
    parts.colors.append(columns[:, 3:] if coloured else np.empty((0, 3)))
    parts.vertex_count += len(columns)


def _read_texture(path: Path, parts: _Parts, lines: _Lines) -> None:
    """`vt u v [w]`; w is ignored."""
    if lines.words.min() < 2:
        line = lines.numbers[np.argmax(lines.words < 2)]
        raise UserError(f"{path}, line {line}: texture coordinates are two numbers; is the file cut off?")
    values = _read_numbers(path, lines, float, int(lines.words.sum()))
    at = np.cumsum(lines.words) - lines.words
    parts.texture.append(values[at[:, None] + np.arange(2)])
    parts.texture_count += len(at)


def _read_faces(path: Path, parts: _Parts, lines: _Lines, before: Integers, texture_before: Integers) -> None:
    """`f` lines with corners v, v/vt, v//vn or v/vt/vn.

    before, texture_before: [L] vertices and texture coordinates defined above each line, which negative
    indices count back from.
    """
    if lines.words.min() < 3:
        line = lines.numbers[np.argmax(lines.words < 3)]
        raise UserError(f"{path}, line {line}: a face needs 3 corners; is the file cut off?")
    slashes = np.flatnonzero(lines.text == _SLASH)
    word_of_slash = np.searchsorted(lines.starts, slashes, side="right") - 1
    fields = np.bincount(word_of_slash, minlength=lines.starts.size) + 1
    lines.text = np.frombuffer(lines.text.tobytes().replace(b"//", b"/0/").replace(b"/", b" "), np.uint8)
    values = _read_numbers(path, lines, int, int(fields.sum()))
    at = np.cumsum(fields) - fields
    line_of = np.repeat(np.arange(lines.words.size), lines.words)
    vertex = values[at]
    texture = np.where(fields > 1, values[np.minimum(at + 1, values.size - 1)], 0)
    corners = _Corners(_absolute(vertex, before[line_of]), _absolute(texture, texture_before[line_of]))
    bad = (corners.vertex < 0) | ((corners.uv < 0) & (texture != 0))
    if bad.any():
        line = lines.numbers[line_of[np.argmax(bad)]]
        raise UserError(f"{path}, line {line}: a face index points at nothing; export the mesh again")
    parts.corners.append(corners)
    parts.sizes.append(lines.words)
    parts.face_lines.append(lines.numbers)


def _absolute(index: Integers, before: Integers) -> Integers:
    """1-based or negative OBJ indices as 0-based ones; 0 (which OBJ does not have) becomes -1."""
    return np.where(index < 0, np.where(-index <= before, before + index, -1), index - 1)


def _assemble(path: Path, parts: _Parts) -> ObjArrays:
    """Check the indices against what the whole file defines and fan the polygons."""
    if not parts.vertex_count:
        raise UserError(f"{path} holds no vertices: is it an OBJ file?")
    if not parts.corners:
        raise UserError(f"{path} holds no faces: a mesh is needed, not a point cloud")
    vertices = np.concatenate(parts.positions)
    corners = _Corners(
        np.concatenate([c.vertex for c in parts.corners]), np.concatenate([c.uv for c in parts.corners])
    )
    sizes = np.concatenate(parts.sizes)
    bad = (corners.vertex >= len(vertices)) | (corners.uv >= parts.texture_count)
    if bad.any():
        line = np.repeat(np.concatenate(parts.face_lines), sizes)[np.argmax(bad)]
        raise UserError(
            f"{path}, line {line}: a face index lies beyond the {len(vertices)} vertices (or "
            f"{parts.texture_count} texture coordinates) of the file; is the file cut off?"
        )
    colors = _colors(path, np.concatenate(parts.colors), len(vertices))
    texture = _texture(path, corners, parts)
    triangles = fan(sizes)
    if texture is None:
        return ObjArrays(vertices, corners.vertex[triangles], colors, None)
    vertex, vertex_of, uv = _unify(corners, len(vertices), texture)
    colors = None if colors is None else colors[vertex_of]
    return ObjArrays(vertices[vertex_of], vertex[triangles], colors, uv)


def _colors(path: Path, colors: Floats, vertex_count: int) -> Floats | None:
    """Colours in [0, 1], or None unless every vertex has one."""
    if len(colors) < vertex_count:
        if len(colors):
            log.warning("%s: only some vertices have colours, so all are dropped", path)
        return None
    return np.clip(colors / 255 if colors.max() > 1 else colors, 0, 1)


def _texture(path: Path, corners: _Corners, parts: _Parts) -> Floats | None:
    """The texture coordinates of the file, or None unless every face corner has one."""
    if (corners.uv < 0).any():
        if (corners.uv >= 0).any():
            log.warning("%s: only some face corners have texture coordinates, so all are dropped", path)
        return None
    return np.concatenate(parts.texture)


def fan(sizes: Integers) -> Integers:
    """Fan-triangulate polygons that list their corners one after the other.

    sizes: [P] corners per polygon, each at least 3. Returns [T, 3] positions in the list of corners: polygon
    (0, 1, 2, 3) gives (0, 1, 2), (0, 2, 3); the polygons' order is kept.
    """
    first = np.cumsum(sizes) - sizes
    count = sizes - 2
    step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    start = np.repeat(first, count)
    return np.stack([start, start + step + 1, start + step + 2], axis=1)


def _unify(corners: _Corners, vertex_count: int, texture: Floats) -> tuple[Integers, Integers, Floats]:
    """Give every vertex one texture coordinate, repeating vertices at texture seams.

    Returns the corners' vertex indices [C], for each resulting vertex the file's vertex [V'] (0..V-1 first,
    then the repeated ones) and its texture coordinate [V', 2] (zero for vertices no face uses).
    """
    key = corners.vertex * len(texture) + corners.uv
    pairs, first_use, pair_of = np.unique(key, return_index=True, return_inverse=True)
    vertex, coordinate = np.divmod(pairs, len(texture))
    by_use = np.argsort(first_use)
    _, keeps = np.unique(vertex[by_use], return_index=True)  # of each vertex, the pair used first
    repeated = np.ones(len(pairs), dtype=bool)
    repeated[by_use[keeps]] = False
    extra = by_use[repeated[by_use]]  # in order of first use
    new_index = vertex.copy()
    new_index[extra] = vertex_count + np.arange(len(extra))
    uv = np.zeros((vertex_count + len(extra), 2))
    uv[new_index] = texture[coordinate]
    return new_index[pair_of.reshape(-1)], np.concatenate([np.arange(vertex_count), vertex[extra]]), uv


def write_obj(file: IO[bytes], arrays: ObjArrays) -> None:
    """Write `v x y z [r g b]`, `vt u v`, and `f v v v` or `f v/vt v/vt v/vt` lines.

    Each number is the shortest text that reads back as the same number of its own type.
    """
    if arrays.colors is None:
        np.savetxt(file, arrays.vertices, fmt="v %s %s %s")
    else:
        columns = np.hstack([arrays.vertices.astype(str), arrays.colors.astype(str)])
        np.savetxt(file, columns, fmt="v %s %s %s %s %s %s")
    faces = arrays.faces + 1
    if arrays.uv is None:
        np.savetxt(file, faces, fmt="f %d %d %d")
        return
    np.savetxt(file, arrays.uv, fmt="vt %s %s")
    np.savetxt(file, np.repeat(faces, 2, axis=1), fmt="f %d/%d %d/%d %d/%d")
