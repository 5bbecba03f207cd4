"""Interpolations are counted before anything is expanded: a few lines cannot cost gigabytes, or minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pytest_overfit.trainer.compose import compose_tree
from pytest_overfit.trainer.interpolation import Interpolation, Unresolved, scan

from .helpers import load, problems, problems_in, write

pytestmark = pytest.mark.usefixtures("composer")


def bomb(text: str, *, first: str = "a0: xxxxxxxxxxxxxxxxxxxx", lines: int = 9) -> str:
    return "\n".join([first, *(f"a{i}: {text.replace('@', f'a{i - 1}')}" for i in range(1, lines))]) + "\n"


BOMBS = {
    "text": bomb("${@}" * 10),
    "quoted text": bomb('"' + "${@}" * 10 + '"'),
    "spaces": bomb("${ @ }" * 10),
    "lists": bomb("[" + ",".join(["'${@}'"] * 10) + "]"),
    "mappings": bomb("{" + ", ".join(f"k{n}: '${{@}}'" for n in range(10)) + "}"),
    "nested keys": bomb("${${n.@}}" * 10) + "n: {" + ", ".join(f"a{i}: a{i}" for i in range(9)) + "}\n",
    "default of a variable": bomb("'" + "${oc.env:NOT_THERE,${@}}" * 10 + "'"),
    "decoded": bomb("'" + "${oc.decode:${@}}" * 10 + "'"),
    "selected": bomb("'" + "${oc.select:@}" * 10 + "'"),
    "selected by name": bomb("'" + '${oc.select:"@"}' * 10 + "'"),
    "values of a mapping": bomb("{k: ['${oc.dict.values:@}', '${@}', '${@}', '${@}', '${@}', '${@}']}",
                                first="a0: {b: xxxxxxxxxxxxxxxx}"),
    "through a section": bomb("{a: '" + "${@.a}" * 10 + "'}", first="a0: {a: xxxxxxxx}"),
    "relative": "s:\n" + "".join(f"  {line}\n" for line in bomb("${.@}" * 10).splitlines()),
    "through a reference": bomb("{a: '" + "${r@.a}" * 10 + "'}", first="a0: {a: xxxxxxxx}")
                           + "".join(f"ra{i}: ${{a{i}}}\n" for i in range(9)),
    "one long text, many times": f"a: {'x' * 90_000}\nb: {'${a}' * 5_000}\n",
    "a custom resolver": bomb("'" + "${eight_times:${@}}" * 10 + "'"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def resolver() -> None:
    OmegaConf.register_new_resolver("eight_times", lambda text: str(text) * 8, replace=True)


@pytest.mark.parametrize("kind", BOMBS)
def test_what_multiplies_is_refused(tmp_path: Path, kind: str) -> None:
    """Whatever the references go through, in a file or as an override, a few lines are refused at once."""
    (line,) = problems_in(tmp_path, BOMBS[kind])
    assert "values that expand to " in line
    assert "allowed: at most 10000 values and 1000000 signs, 64 deep" in line


def test_overrides_and_included_files_multiply_no_further(tmp_path: Path) -> None:
    """The same lines as overrides, one below another, or spread over a config and what it includes."""
    texts = [f"a{i}=" + f"${{a{i - 1}}}" * 10 for i in range(1, 9)]
    (line,) = problems(write(tmp_path, "a0: xxxxxxxxxxxxxxxxxxxx\n"), [*texts, "a8.b=1"])
    assert "values that expand to " in line
    head, *rest = BOMBS["text"].splitlines()
    write(tmp_path, "\n".join(rest) + "\n", "base.yaml")
    (line,) = problems(write(tmp_path, f"defaults: [base]\n{head}\n"))
    assert "values that expand to " in line


def test_a_long_variable_counts_with_its_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of the environment is as long as it is."""
    monkeypatch.setenv("LONG", "x" * 100_000)
    (line,) = problems_in(tmp_path, "a: '" + "${oc.env:LONG}" * 20 + "'\n")
    assert "values that expand to " in line
    assert "xxxx" not in line


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a: '" + "${" * 200_000 + "'\n", "200000 interpolations"),
        ("a: '" + "${a}" * 20_000 + "'\n", "20000 interpolations"),
        ("a: '" + "${${a}" * 90 + "'\n", "interpolations more than 64 deep"),
        ("".join(f"a{i}: ${{a{i + 1}}}\n" for i in range(200)) + "a200: 1\n", "values more than 64 deep"),
        ("a: " + "[" * 400_000 + "\n", "values nested too deeply"),
        ("a: " + "{b: " * 5_000 + "\n", "values nested too deeply"),
        ("a: " + "[" * 100 + "]" * 100 + "\n", "values more than 64 deep"),
        ("a: &a {b: [*a]}\n", "an alias of a value inside itself"),
        ("a: &a {x: 1}\na: &a {y: 2}\n", "a YAML syntax error: second occurrence"),
        ("a: !!python/object/apply:os.system [ls]\n", "a YAML syntax error: could not determine a constructor"),
        ("a: !!python/name:os.system\n", "a YAML syntax error: could not determine a constructor"),
        ("a: \0b\n", "text that is not a config"),
        ("\ufeffseed_value: x\n", "'x'"),
        ("seed_value: " + "9" * 5_000 + "\n", "text that is not a config: Exceeds the limit"),
        ("a: ${a}\n", "${a}, which cannot be resolved"),
        ("a: {b: '${a}'}\n", "${a}, which cannot be resolved"),
        ("a: ['${a}']\n", "${a}, which cannot be resolved"),
    ],
)  # fmt: skip
def test_other_ways_to_be_endless(tmp_path: Path, text: str, found: str) -> None:
    """Nesting, cycles, tags, signs and numbers without end are problems of the file, never another error."""
    assert any(f"found {found}" in line for line in problems_in(tmp_path, text))


def test_merged_keys_are_bounded_as_aliases(tmp_path: Path) -> None:
    """A merge key takes a whole mapping in: ten times ten of them are refused."""
    lines = ["b0: &b0 {" + ", ".join(f"k{n}: 1" for n in range(50)) + "}"]
    lines += [f"b{i}: &b{i} {{{', '.join(f'x{n}: *b{i - 1}' for n in range(10))}, <<: *b{i - 1}}}" for i in range(1, 8)]
    (line,) = problems_in(tmp_path, "\n".join(lines) + "\n")
    assert "aliases that expand to " in line


def test_an_ordinary_config_is_far_from_the_bounds(tmp_path: Path) -> None:
    """References into sections, relative ones, chains and defaults resolve to what OmegaConf says."""
    text = """\
    a: {b: 3, c: '${.b}', d: ['${a.b}', '${..e}'], e: x}
    f: ${a}
    g: ${f.d[0]}
    h: ${oc.select:a.zz,7}
    i: \\${a}
    j: ${oc.env:NOT_THERE_AT_ALL,${a.b}}
    k: ${oc.decode:"[1, 2]"}
    """
    values = load(tmp_path, text).resolved
    assert values["f"] == {"b": 3, "c": 3, "d": [3, "x"], "e": "x"}
    assert (values["g"], values["h"], values["i"], values["j"], values["k"]) == (3, 7, "${a}", "3", [1, 2])


def test_the_keys_that_are_named_are_known(tmp_path: Path) -> None:
    """Each once, as problems spell it."""
    path = write(tmp_path, "a: {b: [1, 2], c: b}\nd: ${a.b[1]}\ne: ${a.${a.c}}\n")
    assert compose_tree(path, []).referred == {"a.b[1]", "a.b", "a.c"}


def test_scan() -> None:
    """Text and interpolations, nested ones inside; what is escaped or never closed is text."""
    assert scan("a") == ("a",)
    assert scan("${a}${b}") == (Interpolation(("a",)), Interpolation(("b",)))
    assert scan(r"\${a} \\${b}") == ("${a} " + "\\", Interpolation(("b",)))
    with pytest.raises(Unresolved, match="never closed"):
        scan("${a ${c}")
    assert Interpolation(("oc.env:", Interpolation(("a",)))).resolver == "oc.env"


LOOPS = (
    "x: ${oc.create:${x}}",
    "x: ${oc.decode:${x}}",
    "x: ${oc.select:${x}}",
    "x: ${oc.select:x}",
    "x: ${oc.dict.values:x}",
    "x: ${oc.env:NOT_THERE,${x}}",
    "x: ${${x}}",
    "x: ${x.y}",
    "x: ${${x.y}.z}",
    "x: {a: '${oc.create:${x.a}}'}",
    "x: {a: '${oc.dict.values:x}'}",
    "x: ['${oc.create:${x[0]}}']",
    "x: ${oc.create:${y}}\ny: ${oc.decode:${x}}",
    "x: ${oc.select:y}\ny: ${oc.create:${x}}",
    "x: ${y.a}\ny: ${x.a}",
    "x: ${oc.create:${y.a}}\ny: ${oc.create:${x.a}}",
    "x: ${oc.decode:${oc.env:LOOP}}",
)


@pytest.mark.parametrize("text", LOOPS)
def test_what_leads_to_itself_is_a_problem(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through resolvers, keys of keys, sections and lists, in a file and as overrides: never the end of the stack."""
    monkeypatch.setenv("LOOP", "${oc.decode:${oc.env:LOOP}}")
    assert any(": x" in line for line in problems_in(tmp_path, f"{text}\n"))
    overrides = [line.replace(": ", "=", 1) for line in text.splitlines()]
    assert any(": x" in line for line in problems(write(tmp_path, "z: 1\n"), overrides))
