"""Configs of strangers: whatever a file, a mapping or ``--set`` holds ends in a config or in one short ConfigError."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import yaml

from spectral_core import ConfigError, SpectralError
from spectral_models.assembly import count_parameters, list_models, load_config
from spectral_models.cli.config import read_config
from spectral_models.config import ModelConfig, list_blocks
from spectral_models.overrides import parse_assignment
from spectral_models.training.config import load_run

Bounded = Callable[..., AbstractContextManager[None]]
EXAMPLES = Path(__file__).parents[2] / "examples"
LONGEST = 8000
"""Characters of a message."""

PARTS = [
    {"type": "multimodal", "encoders": {"text": "encoder", "sound": {"type": "audio_encoder", "num_layers": 2}}},
    {"layers": [{"mixer": {"type": "spectral_gating", "gates": ["advanced", "band", {"type": "phase", "bands": 4}]}}]},
    {"block": {"mixer": {"type": "multiscale", "scales": [1, 4]}, "feedforward": {"type": "moe", "experts": 4}}},
    {"layers": [{"mixer": {"type": "gated_convolution", "filter": name}} for name in ("implicit", "multiresolution")]},
    {"type": "seq2seq", "encoder": {"type": "vision_encoder", "mixing": "separable"}, "fusion": "source_product"},
    {"fft": {"type": "hierarchical", "chunk_size": 512}, "position": {"type": "rope", "base": 1e4}, "max_seq_len": 64},
]


def sources() -> list[dict[str, Any]]:
    """Valid configs, written out and short, of models and of runs."""
    models = [load_config(data) for data in PARTS]
    for name in list_models():
        config = load_config(name)
        small = {"num_layers": 2} if hasattr(config, "num_layers") else {}  # layers beyond say nothing new, and cost
        models.append(load_config(config, **small))
    runs = [load_run(path) for path in sorted(EXAMPLES.glob("*.yaml"))]
    written = [config.model_dump(mode="json") for config in [*models, *runs]]
    short = [yaml.safe_load(path.read_text()) for path in sorted(EXAMPLES.glob("*.yaml"))]
    return [*written, *short, *PARTS, *({"layers": [name]} for name in list_blocks())]


HOSTILE: list[Callable[[random.Random], Any]] = [
    lambda draw: draw.choice([None, True, False, "", [], {}, [[]], [None], [{}], {"": None}, ()]),
    lambda draw: draw.choice([0, -1, 1, 2, 3, 7, 1 << 20, 1 << 31, 1 << 63, -(1 << 70), 40000120]) + draw.randrange(2),
    lambda draw: draw.choice([1, -1]) * 10 ** draw.choice([18, 30, 400, 4299, 4300, 5000]),
    lambda draw: draw.choice([0.0, -0.0, 1.5, 1e-320, 1e308, -1e308, float("nan"), float("inf"), -float("inf"), 1e12]),
    lambda draw: draw.choice(["\x1b[2J", "a\nb", "\x00", "\ud800", "\u202e", "é", "🙂", "\x9b31m", "a\rb", "{x}"]),
    lambda draw: draw.choice("xyz-/ .\n") * draw.choice([1, 300, 5000, 70000]),
    lambda draw: draw.choice(["nan", "1e400", "inf", "0x10", "1_0", "9" * 5000, "1e-3", "yes", "../x", "bytes"]),
    lambda draw: draw.choice([*list_models(), *list_blocks(), "holographic", "hankel", "moe", "learned", "patches"]),
    lambda draw: {f"key{n}": n for n in range(draw.choice([1, 30, 3000]))},
    lambda draw: [draw.choice(["a", 1, {"type": "x"}, None])] * draw.choice([1, 17, 2000]),
    lambda draw: {"type": draw.choice([1, None, [1], {}, "x" * 500, "mlp", "tokens", "\x1b"])},
    lambda draw: nested(draw.choice([3, 63, 64, 65, 900, 5000])),
    lambda draw: circular(),
    lambda draw: laughs(),
]


WRITABLE = [make for index, make in enumerate(HOSTILE[:11]) if index != 2]
"""What JSON can say: no integer of more digits than Python writes."""


def nested(depth: int) -> Any:
    made: Any = 1
    for level in range(depth):
        made = [made] if level % 2 else {"type": made}
    return made


def circular() -> Any:
    made: dict[str, Any] = {"mixer": {}}
    made["mixer"]["type"] = [made]
    return made


def laughs() -> Any:
    made: Any = ["ha"] * 9
    for _ in range(12):
        made = [made] * 9
    return made


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every container inside nested data, with each of its keys."""
    pending = [data]
    while pending:
        node = pending.pop()
        for key, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
            yield node, key
            if isinstance(value, dict | list):
                pending.append(value)


def with_other_values(data: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """The config with keys renamed or gone, and values moved or replaced by hostile ones."""
    data = copy.deepcopy(data)
    known = list(places(data))
    values = [node[key] for node, key in known]
    for node, key in draw.sample(known, min(len(known), draw.choice([1, 1, 1, 2, 5]))):
        kind = draw.randrange(8)
        if kind == 0 and isinstance(node, dict):
            other = draw.choice(["typ", "tyype", "", "\x1b]0;x", 3, None, "x" * 90, f"{key}s", "block", "encoders"])
            node[other] = node.pop(key, None)
        elif kind == 1 and isinstance(node, dict):
            node.pop(key, None)
        else:
            node[key] = draw.choice(values) if kind == 2 else draw.choice(HOSTILE)(draw)
    return data


LINES = [
    "!!int x", "!!python/object/apply:os.system [ls]", "!!binary aGk=", "!!set {a, b}", "!x 1", "2024-13-45",
    "2024-01-01T00:00:00Z", "9" * 5000, "-" + "9" * 400, "0b1", "010", "0x" + "f" * 5000, "12:30:45", "1e-3", "5e-4",
    ".inf", "-.NaN", "1.0e308", "*nothing", "&a [*a]", "&b {x: *b}", "&c 1", "*c", "[" * 900 + "]" * 900, "[" * 3000,
    "{" * 70 + "}" * 70, "'" + "q" * 70000 + "'", "|\n  text", ">-\n  folded\n\n", "? [a]\n: b", "? complex", "{<<: 1}",
    "<<: {num_layers: 2}", "@x", "`", "%TAG ! x", "---", "...", '"\\uD800"', '"\\U00110000"', '"\\x1b[2J"', "null", "~",
    "yes", "- - - x", "a: b: c", "\t", "# no", "[a, b", "{a: }", "\ufeff", "\x00", "\x1b[31m", "\x85", "\u2028x",
]  # fmt: skip


def as_other_text(data: dict[str, Any], draw: random.Random) -> bytes:
    """The config as YAML or JSON whose bytes or lines were changed."""
    text = json.dumps(data, indent=draw.choice([None, 1])) if draw.random() < 0.3 else yaml.safe_dump(data)
    for _ in range(draw.choice([1, 1, 2, 4])):
        lines = text.split("\n")
        at = draw.randrange(len(lines))
        kind = draw.randrange(7)
        if kind == 0:
            lines.insert(at, lines[draw.randrange(len(lines))])
        elif kind == 1:
            del lines[at]
        elif kind in (2, 3):
            head, colon, _ = lines[at].partition(":")
            lines[at] = f"{head}{colon or ':'} {draw.choice(LINES)}"
        elif kind == 4:
            lines[at] = f"{' ' * draw.randrange(9)}{lines[at].strip()}"
        elif kind == 5:
            head, colon, rest = lines[at].partition(":")
            lines[at] = f"{head}{colon} &n{rest or ' x'}" if draw.random() < 0.5 else f"{head}{colon or ':'} *n"
        else:
            lines.insert(at, draw.choice(LINES))
        text = "\n".join(lines)
    content = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(draw.choice([0, 0, 1, 3])):
        if content:
            content[draw.randrange(len(content))] = draw.randrange(256)
    prefix = draw.choice([b""] * 20 + [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x00"])
    return prefix + bytes(content[: draw.choice([len(content)] * 9 + [draw.randrange(len(content) + 1)])])


def assignment(data: dict[str, Any], draw: random.Random) -> str:
    """What stands behind ``--set``."""
    steps: list[str] = []
    node: Any = data
    while isinstance(node, dict | list) and node and draw.random() < 0.8:
        key = draw.choice(list(node) if isinstance(node, dict) else list(range(len(node))))
        steps.append(str(key))
        node = node[key]
    if draw.random() < 0.3:
        odd = [
            "source",
            "type",
            "",
            " ",
            "0",
            "9" * 5000,
            "-1",
            "a" * 5000,
            "\x1b",
            "self",
            "overrides",
            "²",
            "x." * 900,
        ]
        steps.insert(draw.randrange(len(steps) + 1), draw.choice(odd))
    likely = draw.choice(["1", "2", "8", "64", "0.5", "true", "null", "1e-3", "dense", "[1, 4]", "{}", "'8'"])
    value = draw.choice([likely, draw.choice(LINES), json.dumps(draw.choice(WRITABLE)(draw))])
    return f"{'.'.join(steps)}{draw.choice(['='] * 20 + ['', '==', ' = '])}{value}"


def check(made: Callable[[], Any], bounded: Bounded, case: object) -> bool:
    """Whether it was a config; otherwise it ended in one clear error."""
    with bounded(seconds=2.0):
        try:
            config = made()
            model = getattr(config, "model", config)
            assert isinstance(model, ModelConfig)
            count_parameters(model)
        except SpectralError as error:
            message = str(error)
            assert 10 < len(message) <= LONGEST, case
            assert message.replace("\n", "").isprintable(), (message, case)
            return False
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} of {case!r:.3000}") from error
    return True


def outcomes(cases: int, one: Callable[[random.Random], bool]) -> None:
    """Runs seeded cases; some must be valid and some not, or the mutations try nothing."""
    valid = sum(one(random.Random(seed)) for seed in range(cases))  # noqa: S311
    assert 0 < valid < cases


def test_values_of_any_kind(rounds: Callable[[int], int], bounded: Bounded) -> None:
    known = sources()

    def one(draw: random.Random) -> bool:
        data = with_other_values(draw.choice(known), draw)
        load = load_run if data.keys() & {"model", "data", "training"} else load_config
        return check(lambda: load(data), bounded, data)

    outcomes(rounds(6000), one)


def test_files_of_any_bytes(rounds: Callable[[int], int], bounded: Bounded, tmp_path: Path) -> None:
    known = sources()

    def one(draw: random.Random) -> bool:
        content = as_other_text(draw.choice(known), draw)
        path = tmp_path / draw.choice(["config.yaml", "config.yaml", "config.json"])
        path.write_bytes(content)
        return check(lambda: read_config(str(path), []), bounded, content)

    outcomes(rounds(6000), one)


def test_assignments_of_any_text(rounds: Callable[[int], int], bounded: Bounded) -> None:
    known = [
        *((name, load_config(name).model_dump(mode="json")) for name in list_models()),
        *((str(path), load_run(path).model_dump(mode="json")) for path in sorted(EXAMPLES.glob("*.yaml"))),
    ]

    def one(draw: random.Random) -> bool:
        source, data = draw.choice(known)
        changes = [assignment(data, draw) for _ in range(draw.choice([1, 1, 2]))]
        return check(lambda: read_config(source, changes), bounded, (source, changes))

    outcomes(rounds(3000), one)


@pytest.mark.parametrize("source", ["x" * 300, "a\x00b", "\x1b[2J.yaml", "x/" * 3000, "\ud800.yaml", ".", "\n", "~"])
def test_sources_of_any_name(source: str, bounded: Bounded) -> None:
    for load in (load_config, load_run, lambda name: read_config(name, [])):
        assert not check(lambda load=load: load(source), bounded, source)  # type: ignore[misc]


def test_twenty_thousand_unknown_keys_are_a_short_message_at_once(bounded: Bounded) -> None:
    data = {f"hidden_dimm{number}": 1 for number in range(20_000)}
    for given in (data, {"block": {"mixer": {"type": "holographic", **data}}}):
        with bounded(seconds=2.0), pytest.raises(ConfigError, match="and 19,980 more problems") as caught:
            load_config(given)
        assert len(str(caught.value)) <= LONGEST


@pytest.mark.parametrize(
    "text", ["source=x", "type=[1]", "data.type=[1]", "expansion=1.0e308", "frontend.n_fft=40000120"]
)
@pytest.mark.parametrize("source", ["tiny", "audio-small", str(EXAMPLES / "demo.yaml")])
def test_assignments_that_once_had_tracebacks(source: str, text: str, bounded: Bounded) -> None:
    assert not check(lambda: read_config(source, [text]), bounded, text)
    path, _ = parse_assignment(text)
    with pytest.raises(SpectralError, match=path.split(".")[0]):
        read_config(source, [text])
