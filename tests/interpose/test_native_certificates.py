"""Certificates in an invocation's ``/tmp`` are found by ``ssl``, which has them read below Python (C6.1)."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import certifi
import pytest

import tmpguard

pytestmark = pytest.mark.usefixtures("uninstalled")


def test_certificates_in_tmp_are_those_of_the_invocation(guard: tmpguard.Guard) -> None:
    outside = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with guard.invocation():
        Path("/tmp/ca.pem").write_bytes(Path(certifi.where()).read_bytes())
        os.symlink("/tmp/ca.pem", "/tmp/link")
        os.mkdir("/tmp/directory")
        for name in ("/tmp/ca.pem", b"/tmp/ca.pem", Path("/tmp/link"), certifi.where()):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.load_verify_locations(name)
            assert len(context.get_ca_certs()) > 10
            with pytest.raises(ssl.SSLError):  # it was read, and there is no key in it
                context.load_cert_chain(name)  # type: ignore[arg-type]
        context.load_verify_locations(capath="/tmp/directory")
        for missing in ("/tmp/none.pem", "/tmp/none/ca.pem", "/tmp/ca.pem/ca.pem"):
            with pytest.raises(OSError, match=r"No such file|Not a directory") as caught:
                context.load_verify_locations(cafile=missing)
            assert caught.value.filename is None
    with pytest.raises(FileNotFoundError):
        outside.load_verify_locations("/tmp/ca.pem")


def test_arguments_are_refused_in_the_usual_words(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with pytest.raises(TypeError, match="cafile should be a valid filesystem path"):
            context.load_verify_locations(5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="cafile, capath and cadata cannot be all omitted"):
            context.load_verify_locations()
    assert "load_cert_chain" in vars(ssl.SSLContext)
    tmpguard.uninstall()
    assert "load_cert_chain" not in vars(ssl.SSLContext)
