"""The tail: files that services write, followed to their end and beyond their rotation.

Pure, no disk: `lines` cuts bytes into lines, `formats` decodes them, `messages` joins them, `prints` tells contents apart, `position`
is what a checkpoint remembers, `kubernetes` reads paths. Over the disk: `places` finds and opens files, `watch` follows them through rotations,
`reading` turns their bytes into events, `checkpoint` keeps the positions, and `tailer` runs all of it.
"""
