"""tmpguard run --storage-size 1 -- python django_app.py runserver --noreload"""

from __future__ import annotations

import os
import sys

import actions
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY", "of the example"),
)


def view(request: HttpRequest, name: str) -> HttpResponse:
    if name not in ("write", "read", "outside", "overfill", "bundled", "native", "child"):
        return HttpResponse(status=404)
    try:
        action = getattr(actions, name)
        text = action(request.GET.get("text", "hello")) if name == "write" else action()
    except OSError as exc:
        return HttpResponse(f"{exc}\n", "text/plain", 500)
    return HttpResponse(text, "text/plain")


urlpatterns = [path("<name>", view)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
