"""OpenTelemetry's instrumentations wrap threads, executors and sqlite3."""

from __future__ import annotations

import pytest

from tests.company import need
from tests.support import run_python

need("opentelemetry.instrumentation.threading")
need("opentelemetry.instrumentation.sqlite3")

SET_UP = """
from opentelemetry import trace
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
from opentelemetry.instrumentation.threading import ThreadingInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
"""
INSTRUMENT = "ThreadingInstrumentor().instrument(); SQLite3Instrumentor().instrument()"
WORK = """
import os, sqlite3, threading
from concurrent.futures import ThreadPoolExecutor

tracer, seen = trace.get_tracer("test"), []

def work():
    with tracer.start_as_current_span("inner"):
        seen.append(sorted(os.listdir("/tmp")))

with guard.invocation(), tracer.start_as_current_span("outer"):
    connection = sqlite3.connect("/tmp/data.db")
    connection.cursor().execute("create table rows (id)")
    connection.close()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()
spans = exporter.get_finished_spans()
traces = {span.context.trace_id for span in spans}
print(seen, sorted(span.name for span in spans), len(traces), os.path.exists("/tmp/data.db"))
"""
GUARD = "import tmpguard; guard = tmpguard.Guard(storage_size=1, bundle=None)"


@pytest.mark.parametrize(
    "order", [(INSTRUMENT, GUARD), ("import tmpguard", INSTRUMENT, GUARD), (GUARD, INSTRUMENT)]
)
def test_spans_and_files_are_the_request_s_whoever_came_first(order: tuple[str, ...]) -> None:
    printed = run_python("\n".join([SET_UP, *order, WORK]))
    assert printed == "[['data.db'], ['data.db']] ['create', 'inner', 'inner', 'outer'] 1 False\n"
