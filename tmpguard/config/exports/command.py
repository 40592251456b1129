"""``tmpguard export``: the deployment whose storage is the same, by the means of another platform."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import click

from tmpguard.core import originals
from tmpguard.core.errors import ConfigurationError

from ..cli import command, project_file, write
from ..options import respelled
from ..platforms import PLANS
from . import manifests
from .deployment import Deployment, deployments
from .dockerfile import dockerfile, problem_of
from .dockerignore import dockerignore

_TARGETS: Final = ("docker", "compose", "kubernetes", "knative")


@command.command("export")
@click.argument("target", type=click.Choice(_TARGETS))
@click.argument("path", required=False, type=click.Path(exists=True), metavar="[FILE]")
@click.option(
    "--output", "-o", metavar="PATH", help="The file to write; for docker, the directory of the files."
)
@click.option("--function", "functions", multiple=True, metavar="NAME", help="Only this function.")
@click.option("--storage-size", type=int, metavar="MB", help="The size of /tmp, instead of the file's.")
@click.option("--image", metavar="NAME[:TAG]", help="The name of the image. Default: that of the function.")
@click.option("--command", "serving", metavar="COMMAND", help="What the container runs, instead of a guess.")
@click.option(
    "--plan", type=click.Choice(list(PLANS)), default="free", show_default=True, help="Genezio's plan."
)
def export(
    target: str,
    path: str | None,
    output: str | None,
    functions: Sequence[str],
    storage_size: int | None,
    image: str | None,
    serving: str | None,
    plan: str,
) -> None:
    """Write a deployment with the same storage: a read-only root, and memory of that size at /tmp.

    TARGET is docker, compose, kubernetes or knative. FILE is what tmpguard check takes. Prints the file, or
    writes it to --output. For docker, that is a directory, which gets a Dockerfile and the list of the files
    that are left out of the image, Dockerfile.dockerignore, for each function.
    """
    try:
        found = deployments(project_file(path), plan, functions, storage_size, image)
        if serving is not None and len(found) > 1:
            raise ConfigurationError(f"--command is for one of {len(found)} functions: choose by --function")
        if target == "docker":
            _docker(found, output, serving)
        else:
            _write(_manifest(target, found, os.path.dirname(output or "") or "."), output)
    except ConfigurationError as exc:
        raise click.ClickException(respelled(str(exc), "--{name} {value}")) from None


def _manifest(target: str, found: Sequence[Deployment], base: str) -> str:
    if target == "compose":
        return manifests.compose(found, [_dockerfile_of(one, found) for one in found], base)
    return manifests.kubernetes(found) if target == "kubernetes" else manifests.knative(found)


def _dockerfile_of(one: Deployment, found: Sequence[Deployment]) -> str | None:
    """The name of a function's Dockerfile; None if its code is not here."""
    if one.directory is None:
        return None
    return "Dockerfile" if len(found) == 1 else f"{one.name}.Dockerfile"


def _docker(found: Sequence[Deployment], output: str | None, serving: str | None) -> None:
    if output is None:
        if len(found) > 1:
            raise ConfigurationError(
                f"there are {len(found)} functions: give --output, a directory, or --function"
            )
        write(dockerfile(found[0], "Dockerfile", serving).rstrip("\n"))
        click.echo("tmpguard: with --output, it also writes which files are left out of the image", err=True)
        return
    try:
        os.makedirs(output, exist_ok=True)
    except OSError as exc:
        raise problem_of(output, exc) from None
    for one in found:
        name = os.path.join(output, _dockerfile_of(one, found) or "Dockerfile")
        _write(dockerfile(one, name, serving), name)
        _write(dockerignore(one), f"{name}.dockerignore")


def _write(text: str, output: str | None) -> None:
    if output is None:
        write(text.rstrip("\n"))
        return
    try:
        with originals.open(output, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
    except OSError as exc:
        raise problem_of(output, exc) from None
    click.echo(f"wrote {output}", err=True)
