"""``tmpguard run``: serves an application unchanged, in storage that the kernel enforces."""
