"""What `tmpguard export` writes is valid by the official schemas, without any key that they do not know."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("click")
pytest.importorskip("rich")

from click.testing import CliRunner

from tmpguard.config.exports.command import export

jsonschema = pytest.importorskip("jsonschema")
kubernetes_validate = pytest.importorskip("kubernetes_validate")

SCHEMAS = Path(__file__).parent / "schemas"

GENEZIO = """\
backend:
  language: {name: python, runtime: python3.12.x}
  functions:
    - {name: web, entry: main.py, handler: app, type: httpServer, storageSize: 64,
       maxConcurrentRequestsPerInstance: 5, maxConcurrentInstances: 3, timeout: 30, cooldownTime: 7200}
    - {name: other, entry: main.py, handler: app, type: httpServer}
"""

SERVERLESS = """\
service: shop
provider: {name: aws, runtime: python3.13}
functions:
  upload: {handler: main.app, ephemeralStorageSize: 1024, memorySize: 256}
"""

SAM = """\
Resources:
  Upload:
    Type: AWS::Serverless::Function
    Properties: {CodeUri: ., Handler: main.app, Runtime: python3.13, MemorySize: !Ref Memory}
"""


@pytest.fixture(params=[GENEZIO, SERVERLESS, SAM], ids=["genezio", "serverless", "sam"])
def project(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with one kind of project file."""
    names = {GENEZIO: "genezio.yaml", SERVERLESS: "serverless.yml", SAM: "template.yaml"}
    (tmp_path / names[request.param]).write_text(request.param)
    (tmp_path / "main.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def exported(target: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(export, [target])
    assert done.exit_code == 0, done.output
    return [*yaml.safe_load_all(done.stdout)]


def closed(schema: Any) -> Any:
    """The schema of a resource, in which unknown keys are an error: the API server would drop them."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    known = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if known and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def test_compose(project: Path) -> None:
    schema = jsonschema.Draft7Validator(json.loads((SCHEMAS / "compose-spec.json").read_text()))
    (file,) = exported("compose")
    schema.validate(file)
    (service, *_) = file["services"].values()
    with pytest.raises(jsonschema.ValidationError):
        schema.validate({"services": {"x": {**service, "readonly": True}}})


def test_kubernetes(project: Path) -> None:
    documents = exported("kubernetes")
    version = kubernetes_validate.latest_version()
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)
    wrong = {**documents[0], "spec": {**documents[0]["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, version, strict=True)


def test_knative(project: Path) -> None:
    schema = closed(json.loads((SCHEMAS / "knative-service.json").read_text()))
    schema["properties"]["metadata"] = {"type": "object"}
    validator = jsonschema.Draft202012Validator(schema)
    documents = exported("knative")
    for document in documents:
        validator.validate(document)
    documents[0]["spec"]["template"]["spec"]["containerConcurrencies"] = 1
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(documents[0])
