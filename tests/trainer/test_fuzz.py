"""Whatever the bytes, the answer is a config or a ConfigError."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_overfit.errors import ConfigError
from pytest_overfit.settings.overrides import parse_value
from pytest_overfit.trainer.config import OverfitConfig
from pytest_overfit.trainer.loading import load_config

from .test_guide_keys import GUIDE
from .test_overfit_section import FULL

pytestmark = pytest.mark.usefixtures("composer")

# One source of the pair: the trainer's classes, as the first half says.
OURS = FULL.partition("\n")[2].replace("source: cut", "source: trainer").replace("pair_index: 3", "pair_index: 0")
BASE = (GUIDE + "".join(line for line in OURS.splitlines(keepends=True) if "    source_" not in line)).encode()
# The fixture says which way configs are composed: nothing that an example could change.
CHECKS = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
RELAXED = settings(deadline=None, max_examples=60, suppress_health_check=CHECKS)
JUNK = st.sampled_from(
    [b"[", b"{", b"}", b":", b"- ", b"null", b"${", b"${a}", b"&a", b"*a", b"!!set", b"???", b"\t", b"\n", b"'",
     b"1e999", b"!!binary x", b"!!timestamp 1", b"!!int x", b"<<: *a", b"\x00", b"\xff", b"? ", b"|", b"{a: b}", b"[1]",
     b"${oc.env:HOME}", b"${.a}", b"${a}" * 9, b"${a.${b}}", b"${oc.select:a}", b"${oc.decode:", b"[" * 70, b"9" * 5000,
     b"<<: {a: 1}", b"&a [*a]", b"\xef\xbb\xbf", b"!!python/name:os.system", b"password: ", b"follow_links: [/]",
     b"defaults:", b"defaults: [base]\n", b"defaults: [{override model: base}]\n"]
)  # fmt: skip


def outcome(content: bytes, overrides: list[str] | None = None) -> OverfitConfig | None:
    """The config, or None after a ConfigError; any other exception escapes, and fails the test."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.yaml"
        path.write_bytes(content)
        with contextlib.suppress(ConfigError):
            return load_config(path, overrides or [])
    return None


def test_the_base_loads() -> None:
    """What is mutated below is a good config before."""
    assert outcome(BASE) is not None


@RELAXED
@given(st.binary(max_size=200))
def test_random_bytes(content: bytes) -> None:
    """Random bytes never crash."""
    outcome(content)


@RELAXED
@given(st.text(max_size=100))
def test_random_text(text: str) -> None:
    """Random text, as a whole file or as one value, never crashes."""
    outcome(text.encode("utf-8", "replace"))
    outcome(b"overfit: {criteria: {objective: " + text.encode("utf-8", "replace") + b"}}\n")


@RELAXED
@given(st.lists(st.tuples(st.integers(0, len(BASE)), st.integers(0, 12), JUNK), min_size=1, max_size=3))
def test_mutated_yaml(mutations: list[tuple[int, int, bytes]]) -> None:
    """A good config with pieces cut out and junk put in never crashes."""
    content = BASE
    for start, length, junk in mutations:
        content = content[:start] + junk + content[start + length :]
    outcome(content)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "off", "x", "1e-4", "1e999"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "below", "_target_"]), inner),
    max_leaves=4,
)


def keys(value: object, prefix: str = "") -> list[str]:
    if isinstance(value, dict):
        return [prefix] * bool(prefix) + [
            key for name, item in value.items() for key in keys(item, f"{prefix}.{name}" if prefix else str(name))
        ]
    if isinstance(value, list):
        return [prefix] + [key for index, item in enumerate(value) for key in keys(item, f"{prefix}[{index}]")]
    return [prefix]


KEYS = keys(outcome(BASE).resolved)  # type: ignore[union-attr]


@RELAXED
@given(st.sampled_from(KEYS), VALUES)
def test_any_value_at_any_key(key: str, value: object) -> None:
    """Any value of any type at any key of a config gives a config or a ConfigError."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True).strip().removesuffix("...").strip()
    outcome(BASE, [f"{key}={text}"])


@RELAXED
@given(st.text(max_size=30))
def test_any_override(text: str) -> None:
    """Any text as an override never crashes."""
    outcome(b"exp_name: x\n", [text])
    outcome(b"exp_name: x\n", [f"a={text}"])
    outcome(b"exp_name: x\n", [f"a=[{text}]", f"a={{b:{text}}}"])


PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=0x24F, exclude_categories=["C"]), max_size=12)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64) + 1, 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | PRINTABLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PRINTABLE, inner, max_size=3),
    max_leaves=8,
)


@settings(RELAXED, max_examples=200)
@given(JSON, st.booleans())
def test_json_is_read_back(value: object, spaced: bool) -> None:
    """A value written as JSON, with spaces or without, is read back as it was."""
    separators = (", ", ": ") if spaced else (",", ":")
    text = json.dumps(value, ensure_ascii=False, separators=separators)
    assert parse_value(text) == value
