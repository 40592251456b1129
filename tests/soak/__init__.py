"""Requests by the hundred thousand to real servers, while they are signalled, killed, and run out of things.

python -m tests.soak --requests 100000
"""
