"""Every fixed text of the experiment record and of the terminal, in each language; numbers and names stay."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.suggest import nearest
from pytest_overfit.judge.finding import is_line
from pytest_overfit.text import LANGUAGES
from pytest_overfit.text.cause_titles import meaning, seen_forms, title
from pytest_overfit.text.fixed_words import TABLE

Words = Mapping[str, str]


def words(lang: str) -> Words:
    """The fixed texts of a language.

    Example:
        >>> words("en")["train_loss"], words("zh")["train_loss"]
        ('Train Loss', '训练损失')

    Raises:
        OverfitError: there is no such language.
    """
    if lang not in LANGUAGES:
        near = nearest(lang, LANGUAGES)
        raise OverfitError(
            f"no texts in {lang!r}",
            where="lang",
            allowed=" | ".join(LANGUAGES),
            hint=f"did you mean {near}?" if near else None,
        )
    column = LANGUAGES.index(lang)
    return {key: texts[column] for key, texts in TABLE.items()}


def translated(line: str, lang: str) -> str:
    """Lines of the terminal in a language: what is fixed in it, part by part; what is not known stays as it is.

    Example:
        >>> translated("  where: loss_camera, step 60 of 60", "zh")
        '  位置：loss_camera, step 60 of 60'
        >>> translated("objective 0.79, allowed < 0.01: frozen, see ::camera", "zh")
        'objective 0.79，要求 < 0.01：frozen 参数被冻结，见 ::camera'
    """
    if lang == "en" or not line.strip():
        return line
    if "\n" in line:
        return "\n".join(translated(each, lang) for each in line.split("\n"))
    mark, said = re.match(r"((?:E\b)?\s*(?:AssertionError: |Failed: )?)(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
    named = title(said, lang)
    cause, colon, rest = said.partition(": ")
    if colon and (told := title(cause, lang)) != cause:
        return f"{mark}{told}：{translated(rest, lang)}"
    known = _PHRASES.get(said.casefold()) or (named if named != said else None)
    if known:
        return mark + known
    old = said.split("; ")
    for literal, pattern, now in _patterns(whole=len(old) > 1):
        if literal in said and (found := pattern.fullmatch(said)):
            fields = found.groupdict()
            parts = {name: _field_of(name, part, lang) for name, part in fields.items()}
            return mark + now.format(**parts, meaning=meaning(fields.get("id", ""), lang))
    if said.endswith(DOTS) and (begun := _begun(said.removesuffix(DOTS), lang)):
        return f"{mark}{begun}{DOTS}"
    new = [translated(part, lang) for part in old] if len(old) > 1 else old
    return mark + ("; " if new == old else "；").join(new)


def _begun(said: str, lang: str) -> str:
    """The beginning of a sentence, whose end had no room; empty where it begins none that is known.

    What had no room is not made up: it ends before the first field that is not there, and where several sentences
    begin so, behind the last one that is.
    """
    found = [(match, now) for pattern, now in _beginnings() if (match := pattern.fullmatch(said))]
    if not found:
        return ""
    match, now = min(found, key=lambda each: sum(len(part or "") for part in each[0].groups()))  # fixed words most
    known = {name: part for name, part in match.groupdict().items() if part is not None}
    pieces = re.split(r"{(\w+)}", now)  # a name at every second place
    names = pieces[1::2]
    reached = next((place for place, name in enumerate(names) if name not in known), len(names))
    whole = reached == len(names) and len({each for _, each in found}) == 1
    kept = pieces[: 2 * reached + (whole or reached < len(names))]
    parts = (_field_of(piece, known[piece], lang) if place % 2 else piece for place, piece in enumerate(kept))
    return "".join(parts).rstrip("，：；、 ")


@functools.cache
def _beginnings() -> tuple[tuple[re.Pattern[str], str], ...]:
    """Of every long sentence a pattern that fits wherever behind its first words it was cut."""
    patterns = []
    for first, now in seen_forms():
        atoms = re.findall(r"\s*(?:{\w+}|[^\s{]+)", first)
        if len(atoms) > BEGUN:
            pieces = [re.sub(r"\\{(\w+)\\}", _field, re.escape(atom)) for atom in atoms]
            tail = "".join(f"(?:{piece}" for piece in pieces[BEGUN:]) + ")?" * (len(pieces) - BEGUN)
            patterns.append((re.compile("".join(pieces[:BEGUN]) + tail), now))
    return tuple(patterns)


@functools.cache
def _patterns(*, whole: bool) -> tuple[tuple[str, re.Pattern[str], str], ...]:
    """Of a whole line, or of a part of one too: the longest fixed piece, the pattern of the English, the Chinese."""
    seen = sorted(seen_forms(), key=lambda form: -len(re.sub(r"{\w+}", "", form[0])))  # the one that says most first
    joined = [form for form in seen if "; " in form[0]]
    table = (*_LINES, *joined) if whole else (*_LINES, *_PARTS, *seen, *_NAMED)
    return tuple(
        (max(re.split(r"{\w+}", first), key=len), re.compile(re.sub(r"\\{(\w+)\\}", _field, re.escape(first))), now)
        for first, now in table
    )


def _field_of(name: str, part: str, lang: str) -> str:
    if name.rstrip("_") in RAW or is_line(part):
        return part
    return "，".join(translated(each, lang) for each in part.split(", ")) if name == LISTED else translated(part, lang)


def _field(found: re.Match[str]) -> str:
    return f"(?P<{found[1]}>{_WORD if found[1].startswith('word') else '.+?'})"


_PHRASES = {texts[0].casefold(): texts[1] for key, texts in TABLE.items() if key.startswith("stop_")} | {
    "proven": TABLE["proven"][1],
    "shown": TABLE["shown"][1],
    "observed": TABLE["observed_strength"][1],
    "none found": "未发现",
}
DOTS, BEGUN = "...", 5  # of a clipped sentence; so many words of it tell which it is
LISTED = "listed"  # parts with commas between them
RAW = ("name", "code")  # what is to be pasted
_WORD = r"\S+"
# Lines of the terminal; the first that fits is taken, and what stands in its fields is looked up in turn.
_LINES = (
    ("change: {advice}", "修改：{advice}"),
    ("why: {id} ({strength}): {observed}; pytest-overfit explain {name}",
     "原因：{id}（{strength}）：{observed}。{meaning}pytest-overfit explain {name}"),
    ("why: {id} ({strength}); pytest-overfit explain {name}",
     "原因：{id}（{strength}）：{meaning}pytest-overfit explain {name}"),
    ("why: no cause is proven, shown or observed; {rest}", "原因：没有证实、显示或观察到任何原因；{rest}"),
    ("{steps} of {planned} steps in {seconds} s ({step_ms} ms a step), {stop}; {place}",
     "{steps} / {planned} 步，{seconds} 秒（每步 {step_ms} 毫秒），{stop}；{place}"),
)  # fmt: skip
# What is said of something that has a name, and of a term with its value.
_NAMED = (("{word}: {rest}", "{word}: {rest}"), ("{word} {word_}: {rest}", "{word} {word_}：{rest}"))
# What has no "; " in it.
_PARTS = (
    ("{what}: {word}, see ::{teller}", "{what}：{word}，见 ::{teller}"),
    ("why: {id} ({strength}): {observed}", "原因：{id}（{strength}）：{observed}"),
    ("why: {id}", "原因：{id}"),
    ("less likely: {ids}", "可能性较小：{ids}"),
    TABLE["where"],
    TABLE["next"],
    ("note: {note}", "备注：{note}"),
    ("time: {listed}", "耗时：{listed}"),
    ("report: {place}", "报告：{place}"),
    ("overfit: {passed} of {count} memorised", "overfit：{count} 次调用中 {passed} 次记住样本"),
    ("{missed} of {count} criteria missed", "{count} 项判据中有 {missed} 项未达到"),
    ("{missed} of {count} criteria missed: {names}", "{count} 项判据中有 {missed} 项未达到：{names}"),
    ("{held} of {count} items", "{count} 个检查项中的 {held} 个"),
    ("{word} more", "另有 {word} 项"),
    ("{names} and {word} more: not judged: {why}", "{names} 等，另有 {word} 项：未判定：{why}"),
    ("{names}: not judged: {why}", "{names}：未判定：{why}"),
    ("{place} and {word} more: {rest}", "{place} 等，另有 {word} 项：{rest}"),
    ("{names} and {word} more", "{names} 等，另有 {word} 项"),
    ("{observed}, allowed {allowed}: {why}", "{observed}，要求 {allowed}：{why}"),
    ("{observed}, allowed {allowed}", "{observed}，要求 {allowed}"),
    ("{limit} for {steps} steps in a row", "{limit}（连续 {steps} 步）"),
    ("{value} (start {first}, best {best})", "{value}（初始 {first}，最好 {best}）"),
    ("{steps} of {planned} steps in {seconds} s ({step_ms} ms a step), {stop}",
     "{steps} / {planned} 步，{seconds} 秒（每步 {step_ms} 毫秒），{stop}"),
    ("{steps} of {planned} steps in {seconds} s", "{steps} / {planned} 步，{seconds} 秒"),
    ("missed too: {names}", "同样未达到：{names}"),
    ("missed {names}", "未达到：{names}"),
    ("not held until then: {names}", "此前未达到：{names}"),
    ("interrupted too: {names}", "同时被中断：{names}"),
    ("not judged: {why}", "未判定：{why}"),
    ("{steps} steps, all finite", "{steps} 步，数值均有限"),
    ("{tensors} tensors learn, {frozen} frozen as declared", "{tensors} 个张量在学习，{frozen} 个按声明冻结"),
    ("{terms} falling, largest climb {climb}", "{terms} 项下降，最大回升 {climb}"),
    ("{first} in evaluation, {last} in training", "评估模式 {first}，训练模式 {last}"),
    ("valid depth {shares}", "有效深度 {shares}"),
    ("{digest}, drawn {times} times", "{digest}，取样 {times} 次"),
    ("{pair}: valid {first} and {last}, geometry contradicts in {share}",
     "{pair}：有效像素 {first} 和 {last}，几何矛盾 {share}"),
    ("it falls, and would reach its limit at step {step}: give it more steps, or look at the learning rate",
     "仍在下降，预计在第 {step} 步达到阈值：增加步数，或检查学习率"),
    ("it did not fall: look at the learning rate, {rest}", "没有下降：检查学习率、冻结模块和 ::gradients"),
)  # fmt: skip
