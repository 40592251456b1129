"""Applications of frameworks that are not installed with the extra ``dev``, guarded by the middlewares."""
