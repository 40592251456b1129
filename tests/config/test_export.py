"""`tmpguard export`: the deployment has the function's storage, and its container serves the application."""

from __future__ import annotations

import inspect
import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("click")
pytest.importorskip("rich")

from click.testing import CliRunner, Result

from tests.support import free_port
from tmpguard.config.exports.command import export
from tmpguard.config.exports.deployment import dns_label
from tmpguard.config.exports.servers import interface_of

GENEZIO = """\
backend:
  path: server
  language: {name: python, runtime: python3.12.x}
  functions:
    - name: web
      path: .
      entry: main.py
      handler: app
      type: httpServer
      storageSize: 64
      maxConcurrentRequestsPerInstance: 5
      maxConcurrentInstances: 3
      timeout: 30
      cooldownTime: 60
"""

APP = """\
import errno
from fastapi import FastAPI

app = FastAPI()


@app.get("/")
def index():
    found = {}
    for path in ("/tmp/x", "x", "/dev/shm/x"):
        try:
            open(path, "w").close()
            found[path] = 0
        except OSError as exc:
            found[path] = errno.errorcode[exc.errno]
    return found
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a Genezio project with one function, the working directory meanwhile."""
    (tmp_path / "genezio.yaml").write_text(GENEZIO)
    (tmp_path / "server").mkdir()
    (tmp_path / "server/main.py").write_text(APP)
    (tmp_path / "server/requirements.txt").write_text("fastapi\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(export, arguments)


def text(*arguments: str) -> str:
    """What is printed to standard output. Before 8.2, click's runner has to be asked to keep it apart."""
    asked = "mix_stderr" in inspect.signature(CliRunner).parameters
    runner: Any = CliRunner
    done = runner(**({"mix_stderr": False} if asked else {})).invoke(export, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def documents(*arguments: str) -> list[dict[str, Any]]:
    return [*yaml.safe_load_all(text(*arguments))]


def error(*arguments: str) -> str:
    done = run(*arguments)
    assert done.exit_code != 0
    return done.output.strip()


# --- the storage ---------------------------------------------------------------------------------------


def test_compose_has_a_read_only_root_and_memory_of_the_size_at_tmp(project: Path) -> None:
    (file,) = documents("compose")
    service = file["services"]["web"]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp:rw,exec,nosuid,nodev,size=67108864,mode=1777"]
    assert service["build"] == {"context": "server", "dockerfile": "../Dockerfile"}
    assert "mem_limit" not in service


def test_kubernetes_has_a_read_only_root_and_memory_of_the_size_at_tmp(project: Path) -> None:
    deployment, service = documents("kubernetes")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    assert pod["volumes"] == [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}]
    assert deployment["spec"]["replicas"] == 3
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["containerPort"] == 8080


def test_knative_has_the_function_s_concurrency_and_scaling_too(project: Path) -> None:
    (service,) = documents("knative")
    template = service["spec"]["template"]
    assert template["spec"]["containerConcurrency"] == 5
    assert template["spec"]["timeoutSeconds"] == 30
    assert template["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert template["spec"]["volumes"][0]["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Mi"}
    assert template["metadata"]["annotations"] == {
        "autoscaling.knative.dev/max-scale": "3",
        "autoscaling.knative.dev/scale-to-zero-pod-retention-period": "60s",
    }


def test_a_function_of_aws_has_its_memory_and_no_shared_memory(project: Path) -> None:
    (project / "serverless.yml").write_text(
        "service: x\nprovider: {name: aws, runtime: python3.13}\n"
        "functions: {upload: {handler: server/main.handle, ephemeralStorageSize: 1024, memorySize: 256}}\n"
    )
    (service,) = documents("knative", "serverless.yml")
    template = service["spec"]["template"]["spec"]
    (container,) = template["containers"]
    assert template["containerConcurrency"] == 1
    assert template["timeoutSeconds"] == 6
    assert container["resources"]["limits"] == {"memory": "1280Mi"}
    assert container["volumeMounts"][1] == {
        "name": "shared-memory",
        "mountPath": "/dev/shm",
        "readOnly": True,
    }
    (file,) = documents("compose", "serverless.yml")
    assert file["services"]["upload"]["mem_limit"] == "1280m"
    assert file["services"]["upload"]["tmpfs"][1].startswith("/dev/shm:ro,")
    written = text("docker", "serverless.yml")
    assert "FROM public.ecr.aws/lambda/python:3.13\n" in written
    assert 'CMD ["server/main.handle"]' in written
    assert "--memory 1280m" in written


def test_each_function_of_the_project_is_exported(project: Path) -> None:
    with open("genezio.yaml", "a") as file:
        file.write("    - {name: My_Other, path: ., entry: main.py, handler: app, type: httpServer}\n")
    assert [one["metadata"]["name"] for one in documents("knative")] == ["web", "my-other"]
    assert [one["metadata"]["name"] for one in documents("knative", "--function", "My_Other")] == ["my-other"]
    (file,) = documents("compose")
    assert [one["ports"] for one in file["services"].values()] == [
        ["127.0.0.1:8080:8080"],
        ["127.0.0.1:8081:8080"],
    ]
    text("docker", "--output", "out")
    assert sorted(os.listdir("out")) == [
        "my-other.Dockerfile",
        "my-other.Dockerfile.dockerignore",
        "web.Dockerfile",
        "web.Dockerfile.dockerignore",
    ]


def test_the_files_refer_to_each_other_wherever_they_are_written(project: Path) -> None:
    text("docker", "--output", "deploy")
    text("compose", "--output", "deploy/compose.yaml")
    (file,) = yaml.safe_load_all((project / "deploy/compose.yaml").read_text())
    build = file["services"]["web"]["build"]
    context = (project / "deploy" / build["context"]).resolve()
    assert context == project / "server"
    assert (context / build["dockerfile"]).resolve() == project / "deploy/Dockerfile"


# --- the image -----------------------------------------------------------------------------------------


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    lines = [line for line in dockerfile.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(" ", 1)) for line in lines]  # type: ignore[misc]


def test_the_dockerfile_builds_from_the_function_s_directory(project: Path) -> None:
    written = text("docker")
    assert instructions(written) == [
        ("FROM", "python:3.12-slim"),
        ("ENV", "PORT=8080"),
        ("WORKDIR", "/app"),
        ("ENV", "PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1"),
        ("COPY", "--chown=65532:65532 requirements.txt ./"),
        ("RUN", "pip install --no-cache-dir -r ./requirements.txt uvicorn"),
        ("COPY", "--chown=65532:65532 ./ ./"),
        ("USER", "65532:65532"),
        ("EXPOSE", "8080"),
        ("CMD", '["python", "-m", "uvicorn", "main:app", "--host", "0.0.0.0", "--port", "8080"]'),
    ]
    assert "# Build: docker build -t web:latest -f Dockerfile server\n" in written
    assert "--read-only" in written
    assert "--tmpfs /tmp:rw,exec,nosuid,nodev,size=67108864,mode=1777" in written


def test_a_function_with_an_ignore_file_beside_the_project_file_builds_from_there(project: Path) -> None:
    (project / ".genezioignore").write_text("*.csv\n/server/notes.txt\n")
    text("docker", "--output", ".")
    written = (project / "Dockerfile").read_text()
    assert ("COPY", "--chown=65532:65532 server/ ./") in instructions(written)
    assert "-f ./Dockerfile ." in written
    assert (project / "Dockerfile.dockerignore").read_text().splitlines()[1:] == [
        "**/*.csv",
        "server/notes.txt",
    ]


def test_a_directory_of_an_odd_name_is_copied(project: Path) -> None:
    (project / ".genezioignore").touch()
    os.rename("server", "my [server]")
    (project / "genezio.yaml").write_text(GENEZIO.replace("path: server", "path: my [server]"))
    assert ("COPY", '--chown=65532:65532 ["my [[]server]/", "./"]') in instructions(text("docker"))


def test_node_is_served_by_its_entry_file(project: Path) -> None:
    changed = GENEZIO.replace("main.py", "server.js").replace("      handler: app\n", "")
    (project / "genezio.yaml").write_text(changed.replace("python3.12.x", "nodejs20.x"))
    for name in ("package.json", "package-lock.json", "server.js"):
        (project / "server" / name).write_text("{}")
    written = instructions(text("docker"))
    assert written[0] == ("FROM", "node:20-slim")
    assert ("RUN", "npm ci --omit=dev") in written
    assert written[-1] == ("CMD", '["node", "server.js"]')


def test_the_command_and_the_image_can_be_given(project: Path) -> None:
    written = text("docker", "--command", "python -m hypercorn 'main:app'", "--image", "registry/shop:1")
    assert instructions(written)[-1] == ("CMD", '["python", "-m", "hypercorn", "main:app"]')
    assert "-t registry/shop:1 " in written
    (service,) = documents("knative", "--image", "registry/shop:1", "--storage-size", "32")
    assert service["spec"]["template"]["spec"]["containers"][0]["image"] == "registry/shop:1"
    assert service["spec"]["template"]["spec"]["volumes"][0]["emptyDir"]["sizeLimit"] == "32Mi"


@pytest.mark.parametrize(
    ("source", "interface"),
    [
        ("from fastapi import FastAPI\napp = FastAPI(title='x')", "asgi"),
        ("import fastapi as f\napp: f.FastAPI = f.FastAPI()", "asgi"),
        ("from flask import Flask\napp = Flask(__name__)\napp.wsgi_app = print", "wsgi"),
        ("import falcon\napp = falcon.App()", "wsgi"),
        ("import falcon.asgi\napp = falcon.asgi.App()", "asgi"),
        ("from django.core.wsgi import get_wsgi_application\napp = get_wsgi_application()", "wsgi"),
        ("from django.core.asgi import get_asgi_application as g\napp = g()", "asgi"),
        ("from x import wrap\nfrom flask import Flask\napp = Flask('x')\napp = wrap(app)", "wsgi"),
        ("async def app(scope, receive, send): ...", "asgi"),
        ("def app(environ, start_response): ...", "wsgi"),
        ("def app(event, context): ...", None),
        ("async def app(event): ...", None),
        ("from shop import app", None),
        ("app = make()", None),
        ("app = (", None),
    ],
)
def test_the_interface_is_known_from_the_source(source: str, interface: str | None) -> None:
    assert interface_of(source, "app") == interface


FLASK = APP.replace("from fastapi import FastAPI", "from flask import Flask").replace(
    "FastAPI()", "Flask(__name__)"
)


@pytest.mark.parametrize("source", [APP, FLASK], ids=["asgi", "wsgi"])
def test_the_container_s_command_serves_on_a_read_only_root(source: str, project: Path) -> None:
    """It runs in the storage that the export asks for, by the kernel's own mounts, and not in Docker."""
    pytest.importorskip("httptools")
    if source == FLASK:
        pytest.importorskip("waitress")
    from tests.emulator.command_line import run_command

    (project / "server/main.py").write_text(source)
    command = json.loads(instructions(text("docker"))[-1][1])
    with run_command("--port", free_port(), "--", *command, directory=project / "server") as run:
        run.listen()
        assert run.get("/").json() == {"/tmp/x": 0, "x": "EROFS", "/dev/shm/x": 0}


# --- errors --------------------------------------------------------------------------------------------


def test_what_cannot_be_exported_is_an_error_with_the_way_out(project: Path) -> None:
    changes = {
        "      entry: main.py\n": ("", "genezio.yaml:5: backend.functions[0]: has no entry: give --command"),
        "entry: main.py": ("entry: main.rb", "is neither Python nor JavaScript: give --command"),
        "handler: app": ("handler: other", "main.py does not show which server 'other' needs: give --"),
        "storageSize: 64": ("storageSize: 256", "genezio.yaml:10: backend.functions[0].storageSize: 256"),
        "path: .": ("path: nowhere", "nowhere does not exist"),
    }
    for old, (new, said) in changes.items():
        (project / "genezio.yaml").write_text(GENEZIO.replace(old, new, 1))
        assert said in error("docker")


def test_a_wrong_use_is_an_error(project: Path) -> None:
    with open("genezio.yaml", "a") as file:
        file.write("    - {name: WEB, path: ., entry: main.py, handler: app, type: httpServer}\n")
    assert "the functions 'web' and 'WEB' would both be 'web': choose by --function" in error("knative")
    with open("genezio.yaml", "a") as file:
        file.write("    - {name: third, path: ., entry: main.py, handler: app, type: httpServer}\n")
    both = ("--function", "WEB", "--function", "third")
    assert "there are 2 functions: give --output" in error("docker", *both)
    assert "--image x would be that of 2 functions" in error("compose", *both, "--image", "x")
    assert "--command is for one of 2 functions" in error("compose", *both, "--command", "x")
    assert 'has no function \'none\': it has "web", "WEB", "third"' in error("compose", "--function", "none")
    assert "--storage-size 256: 256 MB is over the free plan's 128 MB; --plan pro allows 512" in error(
        "compose", *both, "--storage-size", "256"
    )
    assert "cannot be written" in error("compose", *both, "--output", "nowhere/compose.yaml")
    assert run("helm").exit_code == 2


def test_code_that_is_not_here_is_an_error_of_docker_alone(project: Path) -> None:
    (project / "serverless.yml").write_text(
        "service: x\nprovider: {name: aws, runtime: java21}\nfunctions:\n"
        "  a: {handler: x, image: 1.dkr.ecr.us-east-1.amazonaws.com/a:1}\n  b: {handler: main.x}\n"
    )
    assert "its code is not in a directory here" in error("docker", "serverless.yml", "--function", "a")
    assert "runtime java21: tmpguard exports Python and Node.js" in error(
        "docker", "serverless.yml", "--function", "b"
    )
    (file,) = documents("compose", "serverless.yml")
    assert "build" not in file["services"]["a"]


def test_a_size_that_only_the_deployment_knows_has_to_be_given(project: Path) -> None:
    (project / "template.yaml").write_text(
        "Resources:\n  A:\n    Type: AWS::Lambda::Function\n"
        "    Properties: {Code: server, EphemeralStorage: {Size: !Ref S}}\n"
    )
    said = error("knative", "template.yaml")
    assert said.endswith("EphemeralStorage.Size: !Ref (not resolved here): give --storage-size")
    assert documents("knative", "template.yaml", "--storage-size", "700")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("web", "web"),
        ("My_Function", "my-function"),
        ("UploadFile", "upload-file"),
        ("Upload51C4D210", "upload51c4d210"),
        ("9lives", "f-9lives"),
        ("--", "f"),
        ("x" * 80, "x" * 63),
        ("größe", "gr-e"),
    ],
)
def test_names_become_labels_of_dns(name: str, label: str) -> None:
    assert dns_label(name) == label
    assert re.fullmatch("[a-z]([a-z0-9-]*[a-z0-9])?", label)


def test_the_build_command_can_be_copied_into_a_shell(project: Path) -> None:
    os.mkdir("out dir")
    text("docker", "--output", "out dir")
    lines = (project / "out dir/Dockerfile").read_text().splitlines()
    build = shlex.split(lines[1].removeprefix("# Build: "))
    assert build == ["docker", "build", "-t", "web:latest", "-f", "out dir/Dockerfile", "server"]
