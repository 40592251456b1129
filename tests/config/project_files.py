"""Project files as people write them, for the tests that read them."""

from __future__ import annotations

from pathlib import Path

#: One function of a Flask application, with comments behind the values.
FLASK = """\
# The name of the project.
name: flask-shop
region: us-east-1 # or eu-central-1
yamlVersion: 2
backend:
  # The root directory of the backend.
  path: .
  language:
    name: python
    packageManager: pip
    runtime: python3.11.x
  environment:
    DATABASE_URL: ${{services.databases.shop-db.uri}}
    API_URL: "https://${{ frontend.web.subdomain }}.example"
  functions:
    - name: flask-shop
      path: ./
      type: httpServer
      entry: app.py
      handler: app
      storageSize: 64 # in MB
      maxConcurrentRequestsPerInstance: 10
services:
  databases:
    - name: shop-db
      type: postgres-neon
frontend:
  name: web
  path: client
  publish: dist
  scripts:
    deploy:
      - npm install @genezio-sdk/${{projectName}}@1.0.0-${{stage}}
    build: [npm install, npm run build]
"""

#: Several functions in directories of their own, in both of YAML's styles, indented by four.
SEVERAL = """\
name: media
yamlVersion: 2
backend:
    path: server
    language: {name: python, packageManager: pip}
    functions:
    -   name: thumbnails
        path: thumbnails/
        handler: handler
        entry: main.py
        storageSize: 100
    -   {name: archive, path: archive, handler: main, entry: index.py, storageSize: 50}
    -   name: "ping"
        path: 'ping'
        entry: index.py
        type: httpServer
    scripts:
        deploy: |
            pip install -r requirements.txt
            python manage.py collectstatic --no-input
"""

#: Without any storage size, as `genezio create` leaves it, with Windows' ends of lines.
PLAIN = """\
name: hello-python\r
yamlVersion: 2\r
backend:\r
  path: ./\r
  functions:\r
    - name: hello\r
      path: ./\r
      handler: handler\r
      entry: index.py\r
"""

#: A size that all functions share, by an alias.
ANCHORS = """\
x-sizes:
  small: &small 32
backend:
  path: .
  functions:
    - &first
      name: one
      path: .
      entry: one.py
      storageSize: *small
    - name: two
      <<: *first
      path: .
      entry: two.py
"""

CLASSES = """\
name: tasks
yamlVersion: 2
backend:
  path: server
  classes:
    - path: task.py
      type: jsonrpc
      storageSize: 16
      methods:
        - {name: remind, type: cron, cronString: "*/5 * * * *"}
    - name: Mailer
      path: mailer.py
"""

CONTAINER = """\
name: boxed
yamlVersion: 2
container:
  path: ./docker/Dockerfile
  storageSize: 48
  environment:
    MODE: production
"""

STREAMLIT = """\
name: board
yamlVersion: 2
streamlit:
  path: board
  packageManager: pip
  entryFile: board.py
  storageSize: 24
  subdomain: my-board
"""

#: A function of Python's beside a site of another language.
MIXED = """\
backend:
  path: api
  functions:
    - {name: api, path: ., entry: main.py, type: httpServer, storageSize: 20}
nextjs:
  path: web
  storageSize: 100
"""

SAM = """\
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Parameters:
  Stage: {Type: String, Default: dev}
Globals:
  Function:
    Runtime: python3.12
    Timeout: 30
    CodeUri: common/
    EphemeralStorage:
      Size: 1024
    Environment:
      Variables:
        TABLE: !Ref Table
Conditions:
  IsProd: !Equals [!Ref Stage, prod]
Resources:
  Table:
    Type: AWS::DynamoDB::Table
    Properties:
      TableName: !Sub "${AWS::StackName}-table"
  Resize:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: resize/
      Handler: app.handler
      EphemeralStorage: {Size: 2048}
      Policies:
        - DynamoDBCrudPolicy: {TableName: !Ref Table}
  Ping:
    Type: AWS::Serverless::Function
    Properties:
      Handler: ping.handler
      Role: !GetAtt Role.Arn
  Choosy:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: s3://bucket/code.zip
      EphemeralStorage: !If [IsProd, {Size: 4096}, !Ref "AWS::NoValue"]
  Plain:
    Type: AWS::Lambda::Function
    Properties:
      Code: {S3Bucket: !Ref Bucket, S3Key: code.zip}
  Fn::ForEach::Loop:
    - Name
    - [A, B]
    - Queue${Name}: {Type: AWS::SQS::Queue}
Outputs:
  Url:
    Value: !Sub https://${Api}.execute-api.${AWS::Region}.amazonaws.com/
"""


def written(directory: Path, text: str, name: str = "genezio.yaml") -> Path:
    """Write a project file, and make the directories that these files name."""
    for inner in (
        "server/thumbnails",
        "server/archive",
        "server/ping",
        "docker",
        "board",
        "api",
        "web",
        "common",
        "resize",
    ):
        (directory / inner).mkdir(parents=True, exist_ok=True)
    (directory / "docker" / "Dockerfile").touch()
    path = directory / name
    path.write_bytes(text.encode())
    return path
