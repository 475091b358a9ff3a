"""Plane sweeps compiled for the CPU; `geometry.planes.sweep` is the readable twin."""

from __future__ import annotations

import numpy as np

from geometry.plane_jit import BLOCK, kernel, make_scratch, part, place, span
from geometry.plane_texels import sample_pixel


@kernel
def sweep(photo, maps, texels, beyond, empty, out, top, bottom):
    """A photo seen through planes: out [C, D, H, W], rows top ... bottom, of C <= 4 channels.

    photo: [h * w * 4], less `empty`, which is what is seen where it is not. maps, texels, beyond: as in
    `geometry.plane_jit`.
    """
    channels, planes, _, columns = out.shape
    scratch = make_scratch(out.dtype)
    above, below, left, right, at = scratch[:5]
    samples = np.empty(BLOCK * 4, out.dtype)
    for k in range(planes):
        for row in range(top, bottom):
            first, last = span(maps[k], row, texels, beyond, columns)
            for x in range(0, columns, BLOCK):
                end = min(x + BLOCK, columns)
                i, count = part(first - x, min(last, end) - x)
                place(maps[k], row, x + i, count, texels, beyond, scratch)
                for j in range(count):
                    start = np.int64(at[j])
                    weights = above[j], below[j], left[j], right[j]
                    sample_pixel(photo, start, start + texels[2], *weights, samples, np.int64(j * 4))
                for channel in range(channels):
                    line = out[channel, k, row]
                    line[x:end] = empty
                    for j in range(min(count, end - x - i)):
                        line[x + i + j] += samples[j * 4 + channel]
