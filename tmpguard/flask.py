"""Says which middleware Flask needs."""

raise ImportError(
    "there is no tmpguard.flask: Flask is WSGI, so from tmpguard.wsgi import TmpGuardMiddleware",
    name=__name__,
)
