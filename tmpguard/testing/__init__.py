"""The testing kit: what the pytest plugin is made of (``tmpguard.pytest_plugin``, docs/pytest.md).

==================  ================================================================================
``settings``        options of the ini file and of markers, and the guards made from them
``allow``           which violations are expected
``records``         what each test's requests used and were refused
``requests``        runs and records a request of an ASGI, WSGI or Django application
``routes``          which route of the application a request went to
``patches``         has the test clients of the frameworks do so, once the framework is imported
``interface``       tells ASGI from WSGI
``client``          httpx clients of an application, its lifespan, an event loop in a thread
``fixture``         the fixture ``tmpguard``
``body``            a test's body as one invocation
``violations``      violations as text: source lines and remedies
``tracebacks``      leaves tmpguard's own frames out of pytest's tracebacks
``summary``         the report of a whole run, as data and on the terminal
``page``            the same as one page of HTML
==================  ================================================================================
"""
