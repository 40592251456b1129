"""CPython's own tests, natively and inside an invocation.

python -m tests.cpython                        # all modules of tests/cpython/modules.py
python -m tests.cpython --modules test_os,test_io
"""
