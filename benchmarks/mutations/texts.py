"""Configs, overrides and JSON: lines, tokens and trees."""

from __future__ import annotations

import copy
import json
import re
from random import Random
from typing import Any

from mutations.raw import raw

VALUES = (
    "", "null", "~", "true", "off", "nan", ".nan", ".inf", "-.inf", "-1", "0", "1e400", "1e-400", "0x10", "1_000",
    "9" * 40,
    "9" * 5000, "1.5", "[]", "{}", "[1, 2]", "{a: 1}", "''", "' '", '"\\ud800"', '"\\0"', "2026-01-01", "12:30:45",
    "*a", "&a 1",
    "!!python/object/apply:os.system [x]", "!!binary aGk=", "!!set {a}", "!!float x", "!!int x", "!foo 1", "? a",
    "- - - 1", "|", ">",
    "${img_size}", "${overfit}", "${a.b}", "${oc.env:HOME}", "${oc.env:NOPE,1}", "${now:%Y}", "${", "${}", "${..}",
    "${a:${b}}",
    "${exp_name}${exp_name}", "???", "\t", "\x07", "\ufeff", "a: b: c", "é", "\U0001f600", "a\u2028b", "./x", "/",
    "~nobody/x",
    "pytest_overfit.two_view.reference.TwoViewModel", "os.system", "torch.nn.Linear", "no.such.Thing",
    "[" * 200 + "]" * 200,
    "{a: " * 100 + "1" + "}" * 100, "-9223372036854775809", "18446744073709551616", "1e18", "-0.0", "{<<: {a: 1}}",
    "yes please",
)  # fmt: skip
KEYS = (
    "overfit", "defaults", "optim", "data", "model", "loss", "logging", "max_epochs", "<<", "_target_", "_partial_",
    "_self_", "hydra",
    "exp_name", "img_size", "criteria", "budget", "pair", "1", "null", "true", "1.5", "? [a]", "''", "é", "a.b",
    "a[0]", "__class__",
    "@package", "override /x", "seeds", "device", "amp", "checkpoint", "distributed", "frozen_module_names",
)  # fmt: skip
TREES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**70, -(2**70), 0.5, 1e308, -1e308, 1e-320, "", "a", "NaN",
    "Infinity", "1", "é\0",
    "a" * 5000, "\ud800", [], {}, [1], {"a": 1}, [[[[[]]]]], [None], ["a"], [{}], "../x", "<script>", "\n",
    "finished", "running",
    "passed", "failed", "2026-01-01T00:00:00+00:00", [0] * 3000, {"": ""}, "``` \n# x",
)  # fmt: skip


def config(data: bytes, random: Random) -> bytes:
    """Lines of a YAML file moved, repeated, indented; its values and keys replaced; what multiplies itself added."""
    if random.random() < 0.1:
        return raw(data, random)
    lines = data.decode().splitlines()
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        at = random.randrange(len(lines)) if lines else 0
        if not lines:
            break
        line = lines[at]
        action = random.randrange(10)
        if action == 0:
            del lines[at]
        elif action == 1:
            lines.insert(random.randrange(len(lines)), line)
        elif action == 2:
            lines[at] = random.choice((" ", "  ", "\t", "      ")) + line
        elif action == 3:
            lines[at] = line.lstrip() if random.random() < 0.5 else line[2:]
        elif action in (4, 5, 6) and ":" in line:
            lines[at] = f"{line.partition(':')[0]}: {random.choice(VALUES)}"
        elif action == 7 and ":" in line:
            key = line.partition(":")[0]
            lines[at] = f"{key[: len(key) - len(key.lstrip())]}{random.choice(KEYS)}:{line.partition(':')[2]}"
        elif action == 8:
            indent = line[: len(line) - len(line.lstrip())]
            lines.insert(at, f"{indent}{random.choice(KEYS)}: {random.choice(VALUES)}")
        else:
            lines.extend(_multiplying(random))
    ending = random.choice(("\n", "\n", "\n", "\r\n", "\r"))
    return ending.join(lines).encode("utf-8", "surrogatepass")


def _multiplying(random: Random) -> list[str]:
    """Few lines that stand for many values."""
    levels, width = random.choice((2, 5, 8)), random.choice((2, 9))
    kind = random.randrange(4)
    if kind == 0:
        made = ["b0: &b0 [1, 1]"]
        return made + [f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * width)}]" for n in range(1, levels)]
    if kind == 1:
        made = ["c0: xx"]
        return made + [f"c{n}: {''.join([f'${{c{n - 1}}}'] * width)}" for n in range(1, levels)]
    if kind == 2:
        made = ["d0: {a: 1}"]
        return made + [f"d{n}: {{{', '.join(f'k{i}: ${{d{n - 1}}}' for i in range(width))}}}" for n in range(1, levels)]
    return [f"e: {'[' * 300}{']' * 300}", "f: ${f}", "g: ${h}", "h: ${g}"][random.randrange(4) :]


def overrides(data: bytes, random: Random) -> bytes:
    """`key=value` texts, with a zero byte between them."""
    lines = data.decode().split("\0")
    chosen = random.sample(lines, random.randint(1, min(3, len(lines))))
    made = []
    for line in chosen:
        key, _, value = line.partition("=")
        for _ in range(random.randint(1, 2)):
            action = random.randrange(7)
            if action in (0, 1):
                value = random.choice(VALUES)
            elif action == 2:
                key = ".".join(random.choice(KEYS) for _ in range(random.choice((1, 1, 1, 2, 4))))
            elif action == 3:
                key += random.choice(
                    (".", "..", "[0]", "[-1]", "[9999999999]", "[", "]", ".a", "[a]", " ", "\\", "@b", ".0", "~")
                )
            elif action == 4:
                key = random.choice(("+", "++", "~", "", ".", "=", " ")) + key
            elif action == 5:
                value = raw(value.encode() or b"x", random).decode("latin-1")
            else:
                key = raw(key.encode() or b"x", random).decode("latin-1")
        made.append(f"{key}={value}" if random.random() < 0.95 else key)
    return "\0".join(text.replace("\0", "") for text in made).encode("utf-8", "surrogatepass")


def tree(data: bytes, random: Random) -> bytes:
    """The values of a JSON file replaced, dropped, moved and wrapped; or its tokens."""
    kind = random.random()
    if kind < 0.15:
        return raw(data, random)
    text = data.decode()
    if kind < 0.3:
        return _tokens(text, random).encode("utf-8", "surrogatepass")
    made = json.loads(text)
    for _ in range(random.randint(1, 3)):
        holder, key = _place(made, random)
        action = random.randrange(8)
        if action < 4:
            holder[key] = copy.deepcopy(random.choice(TREES))
        elif action == 4:
            del holder[key]
        elif action == 5:
            holder[key] = [holder[key]] if random.random() < 0.5 else {"a": holder[key]}
        elif action == 6:
            other, name = _place(made, random)
            holder[key] = copy.deepcopy(other[name])
        elif isinstance(holder, dict):
            holder[random.choice(("a", "version", "record", "", "\ud800", str(key)))] = holder[key]
        if not made:
            break
    return json.dumps(made, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")


def _place(made: Any, random: Random) -> tuple[Any, Any]:
    """A random value, as its holder and its key; the upper ones as likely as the many lower ones."""
    holder, key = made, next(iter(made))
    while True:
        value = holder[key]
        if not isinstance(value, (dict, list)) or not value or random.random() < 0.2:
            return holder, key
        holder, key = value, random.choice(list(value)) if isinstance(value, dict) else random.randrange(len(value))


def _tokens(text: str, random: Random) -> str:
    numbers = [match.span() for match in re.finditer(r"-?\d[\d.e+-]*", text[:20_000])]
    start, end = random.choice(numbers)
    token = random.choice((
        "NaN", "Infinity", "-Infinity", "9" * 5000, "-" + "9" * 400, "1e999", "1e-999", "01", "+1", "1.", ".5", "0x1",
        "nul", "'a'",
        "[" * 100_000, "[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900, '"\\ud800"', '"\\u00"', '"\\x"',
        '"', "1,", ",", "//",
        "[" + "[],".join([""] * 2000) + "1]", "true", "1" * 400 + "." + "1" * 400,
    ))  # fmt: skip
    return text[:start] + token + text[end:]
