"""Child processes: what is allowed, refused and contained."""
