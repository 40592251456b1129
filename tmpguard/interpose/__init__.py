"""The patched layer: replaces the standard library's file system functions."""
