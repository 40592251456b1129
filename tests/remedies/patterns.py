"""Libraries that are too large for the tests, by their pattern of file access: the module that reaches for a
file, and the path that it reaches for."""

from __future__ import annotations

import os

from .provoke import Places, Provocation, Step, provokes

MAKES = "import os\ndef prepare(path):\n    os.makedirs(path, exist_ok=True)\n"
"""Makes its directory on first use, as nearly all of them do."""

#: Row, module, and the directory that the module makes.
DIRECTORIES = (
    ("Sentence Transformers: models", "sentence_transformers.util", "~/.cache/sentence-transformers"),
    ("PyTorch: hub models", "torch.hub", "~/.cache/torch"),
    ("Triton: compiled kernels", "triton.runtime.cache", "~/.triton/cache"),
    ("Keras: models and datasets", "keras.src.utils.file_utils", "~/.keras"),
    ("gensim: models and datasets", "gensim.downloader", "~/gensim-data"),
    ("rembg: models", "rembg.sessions.base", "~/.u2net"),
    ("EasyOCR: models", "easyocr.easyocr", "~/.EasyOCR"),
    ("Ultralytics: settings and models", "ultralytics.utils", "~/.config/Ultralytics"),
    ("DeepFace: models", "deepface.commons.folder_utils", "~/.deepface/weights"),
    ("Stanza: models", "stanza.resources.common", "~/stanza_resources"),
    ("yfinance: time zones and cookies", "yfinance.cache", "~/.cache/py-yfinance"),
    ("tldextract: the list of suffixes", "tldextract.cache", "~/.cache/python-tldextract"),
)


#: What a library does that writes a name of its own, as one for workbooks has a temporary file.
WRITES = "def save(path):\n    with open(path, 'wb') as file:\n        file.write(bytes(2_000_000))\n"


@provokes("XlsxWriter: a workbook")
def workbook(places: Places) -> Step:
    module = places.library("xlsxwriter.workbook", WRITES)
    return lambda: module.save("report.xlsx")


@provokes("XlsxWriter: temporary files")
def sheets(places: Places) -> Step:
    module = places.library("xlsxwriter.worksheet", WRITES)
    return lambda: module.save("/tmp/sheet1")


def making(name: str, path: str) -> Provocation:
    def provocation(places: Places) -> Step:
        module = places.library(name, MAKES)
        return lambda: module.prepare(os.path.expanduser(path))

    return provocation


for _row, _module, _path in DIRECTORIES:
    provokes(_row)(making(_module, _path))
