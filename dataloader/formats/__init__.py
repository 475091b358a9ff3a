"""File formats of posed photo sets, by name.

`open_scene` reads any of them; `write_scene` writes any of them.
"""
