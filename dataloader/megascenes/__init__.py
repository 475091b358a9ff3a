"""The MegaScenes image pairs: split files, where photos and warps lie, and what prepares them."""
