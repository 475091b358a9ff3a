"""Disk <-> Scene and Views: one module per file format, image transforms that move intrinsics along, built-in
scenes.

Every reader converts its format's conventions to the project's (see `geometry`) at the border, once.
"""
