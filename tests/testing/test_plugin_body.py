"""The marker: a test's body as one invocation, its options, and pytest's own temporary directories."""

from __future__ import annotations

import hypothesis
import pytest

from tests.support import Run

pytest_plugins = ["pytester"]

assert hypothesis  # else the run that needs it would import it, and forget it again


def test_the_body_is_one_invocation_and_no_fixture_is(pytester: pytest.Pytester, run: Run) -> None:
    pytester.makepyfile(
        """
        import asyncio
        import os
        import shutil
        import tempfile
        import unittest
        import pytest
        import tmpguard as module

        @pytest.fixture
        def outside():
            assert module.current() is None
            yield
            assert module.current() is None
            assert not os.path.exists("/tmp/in-the-body.txt")

        @pytest.mark.tmpguard(storage_size=1)
        def test_body(outside, tmpguard):
            with open("/tmp/in-the-body.txt", "w") as file:
                file.write("text")
            assert shutil.disk_usage("/tmp").total == 1 << 20
            assert tmpguard.last.peak_bytes == 4096

        @pytest.mark.tmpguard
        def test_violation(outside):
            with pytest.raises(OSError, match="Read-only"):
                open("new.txt", "w")

        @pytest.mark.tmpguard(allow=["EROFS"], storage_size=1)
        def test_allowed():
            with pytest.raises(OSError, match="Read-only"):
                open("new.txt", "w")

        @pytest.mark.tmpguard(allow=["EROFS"])
        def test_a_marker_that_only_allows_guards_no_body():
            assert module.current() is None

        @pytest.mark.tmpguard(storage_size=2, body=False)
        def test_only_the_requests(tmpguard):
            assert module.current() is None
            tmpguard.client(lambda environ, start: (start("200 OK", []), [b""])[1]).get("/")
            assert tmpguard.last.quota_bytes == 2 << 20

        @pytest.mark.tmpguard(storage_size=1, max_files=2)
        class TestClass:
            def test_options_of_the_class(self):
                assert module.current().guard.max_files == 2

            @pytest.mark.tmpguard(storage_size=3)
            def test_nearer_options(self):
                guard = module.current().guard
                assert (guard.storage_size, guard.max_files) == (3, 2)

        class TestCase(unittest.TestCase):
            @pytest.mark.tmpguard
            def test_method(self):
                self.assertIsNotNone(module.current())

        class AsyncCase(unittest.IsolatedAsyncioTestCase):
            @pytest.mark.tmpguard
            async def test_method(self):
                self.assertIsNotNone(module.current())

        @pytest.mark.anyio
        @pytest.mark.tmpguard
        @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
        async def test_async(anyio_backend, outside):
            assert module.current() is not None
            with open("/tmp/in-the-body.txt", "w") as file:
                file.write("text")

        @pytest.mark.tmpguard
        @pytest.mark.parametrize("number", [1, 2])
        def test_each_has_its_own(number):
            assert not os.path.exists("/tmp/file")
            open("/tmp/file", "w").close()

        @pytest.mark.tmpguard
        def test_a_request_within(tmpguard):
            def app(environ, start_response):
                assert not os.path.exists("/tmp/of-the-body")
                open("/tmp/of-the-request", "w").close()
                start_response("200 OK", [])
                return [b""]
            open("/tmp/of-the-body", "w").close()
            tmpguard.client(app).get("/")
            assert os.path.exists("/tmp/of-the-body")
            assert not os.path.exists("/tmp/of-the-request")
        """
    )
    result = run()
    result.assert_outcomes(passed=13, failed=1)
    result.stdout.fnmatch_lines(["*in:      (body of the test)"])


def test_each_example_of_hypothesis_is_an_invocation(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os
        import pytest
        from hypothesis import given, settings, strategies

        @pytest.mark.tmpguard
        @settings(max_examples=5, deadline=None, database=None, derandomize=True)
        @given(strategies.integers())
        def test_example(number):
            assert not os.path.exists("/tmp/file")
            open("/tmp/file", "w").close()
        """
    )
    without = ("-p", "no:randomly", "-p", "no:asyncio", "-p", "no:cacheprovider")
    result = pytester.runpytest_inprocess(*without)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["(body of the test)*5     0  0"])


def test_tmp_path_is_readable_and_writable_if_an_option_allows_it(
    pytester: pytest.Pytester, run: Run
) -> None:
    pytester.makepyfile(
        """
        import pytest
        import tmpguard

        @pytest.fixture
        def given(tmp_path):
            (tmp_path / "given.txt").write_text("given")
            return tmp_path / "given.txt"

        @pytest.mark.tmpguard
        def test_readable(given):
            assert given.read_text() == "given"

        @pytest.mark.tmpguard
        def test_not_writable(given):
            with pytest.raises(OSError, match="Read-only"):
                given.write_text("new")

        @pytest.mark.tmpguard(writable_tmp_path=True, storage_size=1)
        def test_writable(given):
            given.write_bytes(bytes(2 << 20))

        @pytest.mark.tmpguard
        def test_not_seen_without_it():
            assert tmpguard.current().guard.readable == ()

        def test_requests(request, given):
            def app(environ, start_response):
                given.write_text("new")
                start_response("200 OK", [])
                return [b""]
            request.getfixturevalue("tmpguard").client(app, writable_tmp_path=True).get("/")
            assert given.read_text() == "new"
        """
    )
    # Elsewhere than this run's own, in which the project of the test itself lies.
    elsewhere = pytester.mkdir("elsewhere")
    result = run(f"--basetemp={elsewhere}/below")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(
        ["  remedy:  pytest's temporary directories are read-only for the application; *"]
    )
    result = run(f"--basetemp={elsewhere}/below", "-o", "tmpguard_writable_tmp_path=true")
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*DID NOT RAISE*"])


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("storage_sise=1", "storage_sise= is not an option of tmpguard: did you mean storage_size=*"),
        ("storage_size=0", "storage_size=0 is not a storage size*"),
        ("allow='EROFS'", "allow='EROFS' is not a list*"),
        ("1", "the marker tmpguard takes only keyword arguments, not 1"),
        ("body=1", "body=1 is neither True nor False"),
    ],
)
def test_a_wrong_marker_fails_its_test(
    pytester: pytest.Pytester, run: Run, marker: str, message: str
) -> None:
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.mark.tmpguard({marker})
        def test(request):
            pass
        """
    )
    result = run()
    assert sum(result.parseoutcomes().get(kind, 0) for kind in ("failed", "error", "errors")) == 1
    result.stdout.fnmatch_lines([f"tmpguard: {message}"])
    result.stdout.no_fnmatch_line("During handling of *")
