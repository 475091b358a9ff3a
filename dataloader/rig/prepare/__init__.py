"""From a rig's videos to what the mask-volume method reads: frames, pinhole photos, poses, plates, mattes.

`scripts/rig.py` calls one module per sub-command. All of them work on FRAMES/camXX/00000.jpg ... (`frames`).
"""
