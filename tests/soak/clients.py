"""Clients that ask a server of the soak for one thing after another."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from random import Random

from tests.soak.operations import CALM, ROUGH

#: Seconds after which an answer that is not there counts as one that never comes.
PATIENCE = 60


class Clients:
    """Sends ``count`` requests by ``threads`` clients; what is wrong is in ``problems``.

    ``rough`` is the share of requests that take a worker's descriptors, or kill it: others may be lost
    with it then. If it is 0, none may be. On a ``small`` disk, not everything fits.
    """

    def __init__(self, port: int, seed: int, *, rough: float, small: bool = False) -> None:
        self._port, self._seed, self._rough = port, seed, rough
        self._small = small
        weights = {operation: weight / sum(CALM.values()) * (1 - rough) for operation, weight in CALM.items()}
        weights |= {operation: weight / sum(ROUGH.values()) * rough for operation, weight in ROUGH.items()}
        self._operations = [operation.__name__ for operation in weights]
        self._weights = list(weights.values())
        self.problems: list[str] = []
        self.answers: Counter[str] = Counter()

    def send(self, count: int, threads: int = 8) -> None:
        shares = [count // threads + (number < count % threads) for number in range(threads)]
        clients = [
            threading.Thread(target=self._client, args=(Random(f"{self._seed} {number}"), share))
            for number, share in enumerate(shares)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()

    def _client(self, random: Random, count: int) -> None:
        connection = self._connection()
        for _ in range(count):
            [name] = random.choices(self._operations, self._weights)
            streams = random.random() < 0.1
            query = f"seed={random.randrange(1 << 30)}{'&body=stream' * streams}"
            query += "&place=thread" * (random.random() < 0.5)
            try:
                self._ask(connection, f"/{name}?{query}", abandon=streams and random.random() < 0.5)
            except TimeoutError:
                self.problems.append(f"no answer to /{name}?{query} within {PATIENCE} seconds")
                return
            except (OSError, http.client.HTTPException) as exc:
                connection.close()
                connection = self._connection()
                self.answers["lost"] += 1
                if not self._rough:
                    self.problems.append(f"/{name}?{query}: {exc!r}")
                elif name != "killed":
                    time.sleep(0.05)
                continue
            if random.random() < 0.1:
                connection.close()
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, path: str, *, abandon: bool) -> None:
        connection.request("GET", path)
        response = connection.getresponse()
        if abandon:
            response.read(1000)
            connection.close()
            self.answers["abandoned"] += 1
            return
        body = response.read()
        kind = "stream" if body and not body.strip(b"x") else body.decode(errors="replace")
        self.answers[kind] += 1
        expected = {"ok", "stream"} | ({"hindered", "failed"} if self._rough or self._small else set())
        if response.status != 200 or kind not in expected:
            self.problems.append(f"{path}: {response.status} {kind[:200]}")

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)


def stats(port: int, workers: int = 2) -> dict[int, dict[str, int]]:
    """The figures of that many workers, by the numbers of their processes; of fewer if no more answer."""
    found: dict[int, dict[str, int]] = {}
    deadline = time.monotonic() + PATIENCE / 2
    while len(found) < workers and time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request("GET", "/stats")
            told = json.loads(connection.getresponse().read())
            found[told["process"]] = told
        except (OSError, http.client.HTTPException):
            time.sleep(0.1)
        finally:
            connection.close()
    return found
