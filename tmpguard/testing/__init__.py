"""The testing kit, which implements the pytest plugin (``tmpguard.pytest_plugin``, docs/pytest.md).

==================  ================================================================================
``plugin``          pytest's hooks: runs requests and tests as invocations, fails tests, reports
``settings``        options from the ini file and from markers, and the guards made from them
``baseline``        known findings, which do not fail tests
``ci``              annotations of GitHub Actions, and properties for JUnit's XML
``allow``           which violations are expected
``records``         what each test's requests used and were refused
``applications``    runs and records requests to an ASGI, WSGI or Django application
``patches``         makes the frameworks' test clients guard their requests, once the framework is imported
``startup``         imports and the start-up of an ASGI application as invocations
``importing``       the command ``tmpguard import``
``imported``        what imports leave in ``/tmp``, for tests with ``lifetime="instance"``
``fixture``         the fixture ``tmpguard``
``client``          the fixture's httpx clients
``asgi_client``     the client transport for ASGI, with an event loop in a thread; needs anyio
``live``            the fixture's real servers
``live_asgi``       serves an ASGI application by uvicorn
``live_wsgi``       serves a WSGI application by werkzeug
``http``            httpx or httpx2, on which the clients are built
``lifespan``        runs an ASGI application's start-up and shutdown
``body``            a test's body as one invocation
``tracebacks``      leaves tmpguard's own frames out of pytest's tracebacks
==================  ================================================================================
"""
