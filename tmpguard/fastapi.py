"""Says which middleware FastAPI needs."""

raise ImportError(
    "there is no tmpguard.fastapi: FastAPI is ASGI, so from tmpguard.asgi import TmpGuardMiddleware",
    name=__name__,
)
