"""Sentry's SDK wraps the methods of threads and executors."""

from __future__ import annotations

import pytest

from tests.company import need
from tests.support import run_python

need("sentry_sdk")

BEFORE = """
import warnings
warnings.simplefilter("ignore")
import sentry_sdk
sentry_sdk.init("http://key@127.0.0.1:1/1", shutdown_timeout=0)
"""
WORK = """
import os, threading
from concurrent.futures import ThreadPoolExecutor
import tmpguard

guard = tmpguard.Guard(storage_size=1, bundle=None)
{after}
seen = []

class OwnRun(threading.Thread):
    def run(self):
        seen.append(os.listdir("/tmp"))

with guard.invocation():
    open("/tmp/mine", "w").close()
    for thread in (threading.Thread(target=lambda: seen.append(os.listdir("/tmp"))), OwnRun()):
        thread.start()
        thread.join()
    with ThreadPoolExecutor(1) as pool:
        seen.append(pool.submit(os.listdir, "/tmp").result())
thread = threading.Thread(target=lambda: seen.append(tmpguard.current()))
thread.start()
thread.join()
print(seen)
sentry_sdk.get_client().close(timeout=0)
"""


@pytest.mark.parametrize("first", ["sentry", "tmpguard"])
def test_threads_and_jobs_belong_to_the_request_whoever_came_first(first: str) -> None:
    code = BEFORE + WORK.format(after="") if first == "sentry" else WORK.format(after=BEFORE)
    assert run_python(code) == "[['mine'], ['mine'], ['mine'], None]\n"
