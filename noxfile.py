"""The tests on every Python that is supported, and on the oldest PyTorch: ``nox``, or ``nox --session oldest``.

``make test`` runs them on one Python with pinned versions; Pythons that a machine lacks are skipped.
"""

import nox

nox.options.error_on_missing_interpreters = False
EXTRAS = ".[train,export,quantize,docs,dev]"


@nox.session(python=["3.10", "3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """The default tests, with the newest releases that each Python takes."""
    session.install("--editable", EXTRAS)
    session.run("pytest", "--numprocesses", "2", *session.posargs)


@nox.session(python=["3.10", "3.11"])
def oldest(session: nox.Session) -> None:
    """The layers and the core on the oldest supported PyTorch."""
    session.install("torch==2.9.*", "--editable", ".", "pytest", "pytest-xdist", "hypothesis")
    session.run("pytest", "--numprocesses", "2", "tests/core", "tests/layers", *session.posargs)
