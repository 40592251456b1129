"""tmpguard run --storage-size 1 -- uvicorn fastapi_app:app"""

from __future__ import annotations

import actions
from fastapi import FastAPI
from fastapi.requests import Request
from fastapi.responses import PlainTextResponse

app = FastAPI(default_response_class=PlainTextResponse)


@app.exception_handler(OSError)
def failed(request: Request, exc: OSError) -> PlainTextResponse:
    return PlainTextResponse(f"{exc}\n", status_code=500)


@app.get("/write")
def write(text: str = "hello") -> str:
    return actions.write(text)


for action in (
    actions.read,
    actions.outside,
    actions.overfill,
    actions.bundled,
    actions.native,
    actions.child,
):
    app.get(f"/{action.__name__}")(action)
