"""What is not installed is named, with what to install; and nothing of it is imported before it is asked for."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import coatcheck.telemetry
from coatcheck.errors import CoatcheckError, MissingExtra

EXTRAS = [
    ("CacheCollector", "coatcheck.telemetry.prometheus", "prometheus_client", "prometheus"),
    ("SpanObserver", "coatcheck.telemetry.otel", "opentelemetry", "otel"),
]


@pytest.mark.parametrize(("name", "module", "package", "extra"), EXTRAS)
def test_a_missing_extra_is_an_error_that_says_what_to_install(
    name: str, module: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loaded in list(sys.modules):
        if loaded == module or loaded.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, None)

    for ask in (lambda: importlib.import_module(module), lambda: getattr(coatcheck.telemetry, name)):
        with pytest.raises(MissingExtra) as caught:
            ask()
        assert f"{module} needs {package}: install coatcheck[{extra}]" == str(caught.value)
        assert package == str(caught.value.name).partition(".")[0]
        assert isinstance(caught.value, ImportError)
        assert isinstance(caught.value, CoatcheckError)


@pytest.mark.parametrize(("name", "module", "package", "extra"), EXTRAS)
def test_what_is_installed_is_there(name: str, module: str, package: str, extra: str) -> None:
    assert getattr(importlib.import_module(module), name) is getattr(coatcheck.telemetry, name)


def test_the_face_of_the_package_imports_no_extra() -> None:
    """Nor do logs."""
    script = (
        "import sys, coatcheck, coatcheck.telemetry; coatcheck.telemetry.LogObserver();"
        "from coatcheck.telemetry import *;"
        "sys.exit(', '.join({'prometheus_client', 'opentelemetry'} & set(sys.modules)) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)

    assert (0, b"") == (ended.returncode, ended.stderr)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        coatcheck.telemetry.Nothing  # noqa: B018
