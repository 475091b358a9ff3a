"""Depth from posed photos: which photos to compare, plane sweep, smoothing, cross-check, fusion to a mesh."""
