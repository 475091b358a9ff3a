"""XScale-NVS: a neural texture on a mesh, hash-encoded on the surface and decoded per viewing direction."""
