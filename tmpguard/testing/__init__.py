"""The testing kit, which implements the pytest plugin (``tmpguard.pytest_plugin``, docs/pytest.md).

==================  ================================================================================
``plugin``          pytest's hooks: runs requests and tests as invocations, fails tests, reports
``settings``        options from the ini file and from markers, and the guards made from them
``allow``           which violations are expected
``records``         what each test's requests used and were refused
``applications``    runs and records requests to an ASGI, WSGI or Django application
``routes``          the application's route that a request went to
``patches``         makes the frameworks' test clients guard their requests, once the framework is imported
``interface``       distinguishes ASGI from WSGI
``startup``         imports and the start-up of an ASGI application as invocations
``fixture``         the fixture ``tmpguard``
``client``          the fixture's httpx clients
``asgi_client``     the client transport for ASGI, with an event loop in a thread; needs anyio
``http``            httpx or httpx2, on which the clients are built
``lifespan``        runs an ASGI application's start-up and shutdown
``body``            a test's body as one invocation
``violations``      violations as text: source lines and remedies
``tracebacks``      leaves tmpguard's own frames out of pytest's tracebacks
``summary``         the report of a whole run, as data and on the terminal
``page``            the report of a whole run as one HTML page
``output``          writes the report to files
==================  ================================================================================
"""
