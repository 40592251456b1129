"""The patched layer: it takes the place of the standard library's ways into the file system."""
