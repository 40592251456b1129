"""Which of CPython's test modules touch files.

Found by running each one of the ``test`` package under an audit hook: those that make, change or remove something in
their working directory or below ``/tmp``. Left out are those whose subject is another one and that start processes,
threads or servers by the dozen (``test_concurrent_futures``, ``test_multiprocessing_*``, ``test_venv``), want a
screen, the network or gigabytes (``test_tkinter``, ``test_zipfile64``), or test tools (``test_lib2to3``).
"""

from __future__ import annotations

#: Not every version has each of them.
MODULES = """
    test___all__ test__xxsubinterpreters test_aifc test_argparse test_array test_ast test_asyncio.test_base_events
    test_asyncio.test_events test_asyncio.test_sendfile test_asyncio.test_streams test_asyncio.test_subprocess
    test_asyncio.test_unix_events test_base64 test_bdb test_bool test_bufio test_builtin test_bytes test_bz2 test_cgi
    test_cgitb test_cmd_line test_cmd_line_script test_codecs test_compile test_compileall test_configparser
    test_contextlib test_cprofile test_csv test_ctypes test_dbm test_dbm_dumb test_dbm_gnu test_dbm_ndbm
    test_dbm_sqlite3 test_distutils test_doctest test_email test_ensurepip test_eof test_exception_hierarchy
    test_exceptions test_faulthandler test_fcntl test_file test_file_eintr test_filecmp test_fileinput test_fileio
    test_fileutils test_fnmatch test_fstring test_gc test_genericpath test_gettext test_glob test_gzip test_hashlib
    test_http_cookiejar test_httplib test_httpservers test_imghdr test_imp test_import test_importlib test_inspect
    test_interpreters test_io test_ioctl test_iter test_json test_largefile test_linecache test_logging test_lzma
    test_mailbox test_marshal test_mimetypes test_mmap test_modulefinder test_multibytecodec test_netrc test_optparse
    test_os test_pathlib test_pdb test_perf_profiler test_pickle test_pipes test_pkg test_pkgutil test_platform
    test_plistlib test_poll test_popen test_posix test_posixpath test_profile test_pty test_py_compile test_pydoc
    test_readline test_reprlib test_resource test_runpy test_sax test_selectors test_shelve test_shutil test_signal
    test_site test_socket test_source_encoding test_sqlite3 test_stat test_string_literals test_subprocess test_sunau
    test_support test_sysconfig test_tabnanny test_tarfile test_tempfile test_termios test_threadedtempfile
    test_threading test_tokenize test_tomllib test_trace test_traceback test_tracemalloc test_unicode_file
    test_unicode_file_functions test_univnewlines test_urllib test_urllib2 test_uu test_warnings test_wave
    test_xml_etree test_xml_etree_c test_zipapp test_zipfile test_zipimport test_zipimport_support test_zoneinfo
""".split()

#: What a test module gets for a module that it imports, natively and inside: the tests of ``os`` and ``io`` that are
#: written against those which the two are made of, and which tmpguard leaves alone.
STAND_INS = {
    "test_posix": ("posix", "os"),
    "test_fileio": ("_io", "io"),
}

#: Tests, as patterns of fnmatch, that are not run: they wait for ever where the kernel knows this kind of socket but
#: nobody answers, on many virtual machines.
LEFT_OUT = ("test.test_socket.*VSOCK*",)
