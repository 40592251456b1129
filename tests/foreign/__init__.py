"""The tests of other projects, plainly and with the layer installed.

python -m tests.foreign                        # all of them
python -m tests.foreign flask werkzeug         # some of them
"""
