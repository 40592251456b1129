"""The testing kit: what the pytest plugin is made of (``tmpguard.pytest_plugin``, docs/pytest.md).

==================  ================================================================================
``plugin``          pytest's hooks: runs requests and tests as invocations, fails tests, reports
``settings``        options of the ini file and of markers, and the guards made from them
``allow``           which violations are expected
``records``         what each test's requests used and were refused
``applications``    runs and records a request of an ASGI, WSGI or Django application
``routes``          which route of the application a request went to
``patches``         has the frameworks' test clients do so, once the framework is imported
``interface``       tells ASGI from WSGI
``startup``         imports and the start-up of an ASGI application as invocations
``fixture``         the fixture ``tmpguard``
``client``          its httpx clients
``asgi_client``     the part for ASGI applications, in an event loop in a thread; needs anyio
``http``            httpx or httpx2, which the clients are made of
``lifespan``        asks an ASGI application for its start-up and shutdown
``body``            a test's body as one invocation
``violations``      violations as text: source lines and remedies
``tracebacks``      leaves tmpguard's own frames out of pytest's tracebacks
``summary``         the report of a whole run, as data and on the terminal
``page``            the same as one page of HTML
``output``          writes both to files
==================  ================================================================================
"""
