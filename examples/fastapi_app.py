"""A FastAPI application. Each request gets its own /tmp.

Start it:   python examples/fastapi_app.py       (uvicorn on http://127.0.0.1:8000; set PORT to change it)
Try it:     curl 'http://127.0.0.1:8000/write?text=hello'; curl http://127.0.0.1:8000/read
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, StreamingResponse

from tmpguard.asgi import TmpGuardMiddleware

app = FastAPI(default_response_class=PlainTextResponse)
app.add_middleware(TmpGuardMiddleware, storage_size=1, bundle=Path(__file__).parent)


@app.get("/write")
def write(text: str = "hello") -> str:
    size = Path("/tmp/note.txt").write_text(text)
    return f"wrote {size} bytes to /tmp/note.txt; /tmp holds {sorted(os.listdir('/tmp'))}\n"


@app.get("/read")
def read() -> str:
    there_before = os.path.exists("/tmp/note.txt")
    Path("/tmp/note.txt").write_text("written by this request")
    return f"a note of another request: {there_before}; of this one: {Path('/tmp/note.txt').read_text()}\n"


@app.get("/outside")
def outside() -> PlainTextResponse:
    try:
        with open("file.txt", "w") as file:
            file.write("this is not /tmp")
    except OSError as exc:
        return PlainTextResponse("\n".join([str(exc), *exc.__notes__, ""]), status_code=500)
    return PlainTextResponse("wrote file.txt\n")


@app.get("/overfill")
def overfill() -> str:
    fitted = 0
    with open("/tmp/big.bin", "wb", buffering=0) as file:
        try:
            while True:
                fitted += file.write(bytes(100_000))
        except OSError as exc:
            return f"{fitted} bytes fitted, then: {exc}\n"


@app.get("/bundled")
def bundled() -> str:
    return Path("/tmp/package/greeting.txt").read_text()


@app.get("/stream")
def stream(lines: int = 1000) -> StreamingResponse:
    def body() -> Iterator[str]:
        with open("/tmp/lines.txt") as file:
            yield from file

    Path("/tmp/lines.txt").write_text("".join(f"line {number}\n" for number in range(lines)))
    return StreamingResponse(body(), media_type="text/plain")


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, port=int(os.environ.get("PORT", "8000")))
