"""Depth maps: what completion of them learns from, and the geometry benchmark's data."""
