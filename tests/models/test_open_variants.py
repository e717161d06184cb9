"""Nothing outside a variant's own file asks which variant it has: read off the syntax trees of the package."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import spectral_models
from spectral_models import MODELS, ModelConfig, variants
from spectral_models.model import SpectralModel

ROOT = Path(spectral_models.__file__).parent
ALLOWED = {
    "causality/check.py": (1, "max_seq_len is optional in any decoder's config, third parties' included"),
}
"""What is left, by file, and why. Lower a number when you remove some; no number grows."""


def classes() -> set[str]:
    """Names of all classes of models and their configs in the variants' files."""
    modules = [
        importlib.import_module(f"{variants.__name__}.{module.name}")
        for module in pkgutil.iter_modules(variants.__path__)
    ]
    found = {value for module in modules for value in vars(module).values() if isinstance(value, type)}
    return {
        cls.__name__
        for cls in found
        if issubclass(cls, SpectralModel | ModelConfig) and cls.__module__.startswith(variants.__name__)
    }


CLASSES = classes()
TYPES = set(MODELS.names())
FIELDS = {name for config in MODELS.configs().values() for name in config.model_fields} - set(ModelConfig.model_fields)
FIELDS = (FIELDS | {"modality", "decoder"}) - {"type"}


def offences(source: str) -> list[str]:
    """What in a module depends on a concrete variant, with line numbers."""
    found = [(node.lineno, why) for node in ast.walk(ast.parse(source)) for why in _offence(node)]  # type: ignore[attr-defined]
    return [f"{line}: {why}" for line, why in sorted(found)]


def _offence(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (f"imports {name.name}" for name in names if name.name.startswith(variants.__name__))
        case ast.ImportFrom(module=str(module), names=names):
            if module.startswith(variants.__name__):
                yield from (f"imports {name.name}" for name in names)
            elif module == spectral_models.__name__:
                yield from (f"imports {name.name}" for name in names if name.name == "variants")
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in CLASSES:
            yield f"names {name}"
        case ast.Compare(left=left, comparators=others) if any(map(_kind, (left, *others))):
            if any(name in TYPES for part in (left, *others) for name in _texts(part)) or _modality(left, *others):
                yield f"compares {ast.unparse(node)}"
        case ast.Subscript(slice=ast.Attribute(attr="type" | "modality")):
            yield f"dispatches {ast.unparse(node)}"
        case ast.MatchValue(value=ast.Constant(value=str(name))) if name in TYPES:
            yield f"matches {name}"
        case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[_, ast.Constant(value=name), *_]) if (
            name in FIELDS
        ):
            yield f"asks for {name}"


def _kind(node: ast.AST) -> bool:
    """Whether an expression is a config's kind: ``.type``, ``["type"]``, ``.get("type")`` or a modality."""
    match node:
        case ast.Attribute(attr="type" | "modality") | ast.Subscript(slice=ast.Constant(value="type")):
            return True
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value="type"), *_]):
            return True
    return False


def _modality(*nodes: ast.AST) -> bool:
    return any(isinstance(node, ast.Attribute) and node.attr == "modality" for node in nodes)


def _texts(node: ast.AST) -> set[object]:
    return {part.value for part in ast.walk(node) if isinstance(part, ast.Constant)}


def test_no_module_outside_a_variant_s_file_depends_on_one() -> None:
    left = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith("variants/") and (found := offences(path.read_text())):
            left[name] = found
    counted = {name: len(found) for name, found in left.items()}
    assert counted == {name: count for name, (count, _) in ALLOWED.items()}, left


@pytest.mark.parametrize(
    "source",
    [
        "from spectral_models.variants.classifier import Classifier",
        "from spectral_models.variants import classifier",
        "from spectral_models import variants",
        "import spectral_models.variants.encoder as e",
        "isinstance(model, LanguageModel)",
        "isinstance(model, parts.Seq2Seq)",
        "issubclass(kind, EncoderConfig)",
        "match model:\n    case Multimodal():\n        pass",
        "match config.type:\n    case 'seq2seq':\n        pass",
        "if config.type == 'classifier': pass",
        "if 'seq2seq' != config.type: pass",
        "if config.type in ('encoder', 'audio_encoder'): pass",
        "if record['type'] == 'multimodal': pass",
        "if record.get('type') == 'language_model': pass",
        "if config.modality == 'text': pass",
        "TASKS[run.model.type]",
        "getattr(model, 'encoder', model)",
        "hasattr(config, 'num_labels')",
        "getattr(config, 'image_size', None)",
    ],
)
def test_it_catches(source: str) -> None:
    assert offences(source)


@pytest.mark.parametrize(
    "source",
    [
        "from spectral_models.model import SpectralModel",
        "if tokenizer.type == 'bytes': pass",
        "if model.config.decoder: pass",
        "getattr(error, 'errno', None)",
        "MODELS.get(config.type)",
        "'a classifier over an encoder'",
    ],
)
def test_it_lets_pass(source: str) -> None:
    assert offences(source) == []
