"""Multiresolution hash grids with the exact semantics of tiny-cuda-nn: one function, several implementations.

`layout` says where every level lies in the table, `initial` how it starts, `twin` what is computed, readably;
`cpu` and `gpu` compute the same faster, and `encoding` is what the rest of the house calls.
"""
