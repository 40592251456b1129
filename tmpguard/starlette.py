"""Says which middleware Starlette needs."""

raise ImportError(
    "there is no tmpguard.starlette: Starlette is ASGI, so from tmpguard.asgi import TmpGuardMiddleware",
    name=__name__,
)
