"""Registries: what they say about unknown, duplicate and broken entries, and that construction stays outside."""

from __future__ import annotations

from typing import Literal

import pytest

from spectral_core import FFT_BACKENDS, FFTBackendConfig, fft_backend, list_fft_backends
from spectral_core.config import PartConfig
from spectral_core.errors import ConfigError, DuplicateComponentError, PluginError, UnknownComponentError
from spectral_core.registry import Entry, Registry


class Shape(PartConfig):
    pass


class Round(Shape):
    type: Literal["round"] = "round"


class Square(Shape):
    type: Literal["acme/square"] = "acme/square"


def entry(name: str, target: type[PartConfig] | str, provider: str = "ours") -> Entry[Shape]:
    return Entry("shape", name, "A shape.", target, provider, "1.0", Shape)


@pytest.fixture
def shapes() -> Registry[Shape]:
    registry = Registry(
        "shape", Shape, populate=lambda: None, failures=lambda: ["Plugin 'acme' (acme-x) failed in import: E."]
    )
    registry.add(entry("round", Round))
    registry.add(entry("acme/square", Square, "acme-x"))
    return registry


def test_names_iterate_sorted_and_match_patterns(shapes: Registry[Shape]) -> None:
    assert shapes.names() == ["acme/square", "round"]
    assert shapes.names("acme/*") == ["acme/square"]
    assert [entry.name for entry in shapes] == ["acme/square", "round"]
    assert len(shapes) == 2
    assert "round" in shapes
    assert "oval" not in shapes


def test_unknown_name_teaches(shapes: Registry[Shape]) -> None:
    with pytest.raises(UnknownComponentError) as caught:
        shapes.get("rund")
    message = str(caught.value)
    assert "no shape is called 'rund'. Did you mean 'round'? Known: acme/square, round." in message
    assert message.endswith("Known: acme/square, round. Plugin 'acme' (acme-x) failed in import: E.")


def test_unknown_name_is_a_value_error_not_a_key_error(shapes: Registry[Shape]) -> None:
    with pytest.raises(ValueError, match="no shape"):
        shapes.get("x")


def test_duplicate_names_both_providers(shapes: Registry[Shape]) -> None:
    with pytest.raises(DuplicateComponentError, match=r"by ours 1\.0 and by theirs 1\.0"):
        shapes.add(entry("round", Round, "theirs"))
    assert shapes.get("round").provider == "ours"


def test_drop_forgets_by_pattern(shapes: Registry[Shape]) -> None:
    shapes.drop("acme/*")
    assert shapes.names() == ["round"]


def test_lazy_target_is_imported_on_load() -> None:
    loaded = FFT_BACKENDS.get("torch")
    assert isinstance(loaded.target, str)
    assert loaded.load().__name__ == "TorchFFTConfig"


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("round", "no_such_module_of_acme:X", "could not be imported from 'no_such_module_of_acme:X'.*Reinstall"),
        ("round", "spectral_core.errors:NoSuchClass", "AttributeError"),
        ("round", "spectral_core.errors:SpectralError", "not a subclass of Shape"),
        ("round", PartConfig, "not a subclass of Shape"),
        ("oval", Round, 'declares type \'round\'. Write  type: Literal\\["oval"\\] = "oval"'),
    ],
)
def test_broken_entry_says_whose_it_is(name: str, target: type[PartConfig] | str, message: str) -> None:
    with pytest.raises(PluginError, match=f"shape '{name}' of acme-x 1.0.*{message}"):
        entry(name, target, "acme-x").load()


def test_a_constructors_own_error_stays_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class RaisesConfig(FFTBackendConfig):
        type: Literal["raises"] = "raises"
        size: int = 1

        def build(self):
            raise KeyError("the constructor's own")

    made = Entry("fft", "raises", "Raises.", RaisesConfig, "ours", "1.0", FFTBackendConfig)
    monkeypatch.setitem(FFT_BACKENDS._entries, "raises", made)
    for options in ({}, {"size": 2}):
        with pytest.raises(KeyError, match="the constructor's own"):
            fft_backend("raises", **options)


def test_a_backend_that_needs_an_option_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class NeedsConfig(FFTBackendConfig):
        type: Literal["needs"] = "needs"
        size: int

    made = Entry("fft", "needs", "Needs.", NeedsConfig, "ours", "1.0", FFTBackendConfig)
    monkeypatch.setitem(FFT_BACKENDS._entries, "needs", made)
    with pytest.raises(ConfigError, match="fft backend 'needs': size: Field required"):
        fft_backend("needs")


def test_backends_by_name() -> None:
    assert {"auto", "torch", "hierarchical"} <= set(list_fft_backends())
    assert list_fft_backends("hier*") == ["hierarchical"]
    assert fft_backend("torch") is fft_backend("torch"), "one instance, so that plans are made and logged once"
    assert fft_backend("hierarchical", block_bytes=2).block_bytes == 2
    with pytest.raises(UnknownComponentError, match="Did you mean 'torch'"):
        fft_backend("troch")
    with pytest.raises(ConfigError, match=r"block_byts: unknown key. Did you mean 'block_bytes'"):
        fft_backend("hierarchical", block_byts=2)
    with pytest.raises(ConfigError, match="block_bytes"):
        fft_backend("hierarchical", block_bytes=0)
    with pytest.raises(ConfigError, match="chunk_size"):
        fft_backend("hierarchical", chunk_size=0)
