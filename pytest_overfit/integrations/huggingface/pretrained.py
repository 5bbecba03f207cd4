"""A model of transformers that is handed over as it is.

Does a language model say again what it has memorised? The check of transformers' own training tests.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pytest_overfit.errors import OverfitError
from pytest_overfit.errors.asking import users_code
from pytest_overfit.run.record import Generated
from pytest_overfit.run.subject import Subject
from pytest_overfit.settings.settings import OverfitSettings

IGNORED = -100  # the label of a token that the loss leaves out
TOKENS = ("input_ids", "attention_mask", "labels", "position_ids", "token_type_ids")


def said_again(model: Any, batch: Any, generates: bool) -> Generated | None:
    """What a trained model generates, or, where it is not to, which tokens a decoder predicts from the true ones."""
    if generates:
        return generate_again(model, batch)
    ahead = predicted_ahead(model, batch)
    return Generated(ahead=ahead) if ahead else None


def predicted_ahead(model: Any, batch: Any) -> tuple[float, ...]:
    """The shares of tokens at which a decoder predicts that token, the next one, and the one after that.

    Empty for other models. A decoder that has memorised its batch has (0, 1, 0), or nearly so; (0, 0, 1) says that its
    labels were shifted twice.

    Raises:
        Refused: the model wants more than its batch has without labels.
    """
    able = getattr(model, "can_generate", None)
    decodes = callable(able) and able() and not model.config.is_encoder_decoder
    ids = batch.get("input_ids") if isinstance(batch, Mapping) else None
    if not decodes or not isinstance(ids, Tensor) or ids.dim() != 2 or ids.shape[1] < 4:
        return ()
    with torch.no_grad(), users_code():
        logits = model(**{key: value for key, value in batch.items() if key != "labels"}).logits
    if logits.shape[:2] != ids.shape:
        return ()
    mask, labels = batch.get("attention_mask"), batch.get("labels")
    counts = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    if isinstance(labels, Tensor) and labels.shape == ids.shape:
        counts = counts & (labels != IGNORED)
    said = logits.argmax(-1)
    return tuple(_share(said, ids, counts, step) for step in range(3))


def _share(said: Tensor, ids: Tensor, counts: Tensor, step: int) -> float:
    end = ids.shape[1] - 2  # the same places for all
    here = counts[:, :end] & counts[:, step : end + step]
    right = (said[:, :end] == ids[:, step : end + step]) & here
    return float(right.sum()) / max(1, int(here.sum()))


def generate_again(model: Any, batch: Any) -> Generated:
    """Generates every sequence of a batch greedily from its prompt, and counts the tokens that come out right.

    The prompt of a decoder is what comes before the first label, at least one token; that of an encoder-decoder is its
    start token. Tokens count up to the first end of a sequence, where generation stops.

    Raises:
        OverfitError: the model does not generate, or the batch holds no sequence of tokens.
    """
    able = getattr(model, "can_generate", None)
    if not callable(able) or not able():
        allowed = "a model of transformers with a language-model head"
        raise OverfitError(f"{type(model).__name__} does not generate", where="generates", allowed=allowed)
    wanted = "labels" if model.config.is_encoder_decoder else "input_ids"
    if not isinstance(batch, Mapping) or not isinstance(batch.get(wanted), Tensor):
        raise OverfitError(
            f"no {wanted} to compare what is generated with", where="generates", allowed=f"a batch with {wanted}"
        )
    again = _decoded if model.config.is_encoder_decoder else _continued
    right = total = longest = 0
    first_wrong = ""
    for index, (prompt, truth, counted, said) in enumerate(again(model, batch)):
        longest = max(longest, prompt)
        for at in counted:
            total += 1
            found = said[at] if at < len(said) else None
            right += found == truth[at]
            if found != truth[at] and not first_wrong:
                first_wrong = (
                    f"sequence {index}, token {prompt + at}: {'nothing' if found is None else found} instead of "
                    f"{truth[at]}"
                )
    return Generated(right, total, longest, first_wrong)


_Sequence = tuple[int, list[int], list[int], list[int]]  # tokens of the prompt, the truth, the places that count, said


def _continued(model: Any, batch: Mapping[str, Any]) -> Iterator[_Sequence]:
    """Each sequence of a decoder, without its padding."""
    ids = batch["input_ids"]
    mask = batch.get("attention_mask")
    labels = batch.get("labels")
    for index, row in enumerate(ids):
        kept = torch.ones_like(row, dtype=torch.bool) if mask is None else mask[index].bool()
        tokens = row[kept]
        learnt = torch.ones_like(tokens, dtype=torch.bool) if labels is None else labels[index][kept] != IGNORED
        places = learnt.nonzero().flatten().tolist()
        start = max(1, places[0]) if places else len(tokens)
        end = _end(tokens.tolist(), start, model)
        if start < end:
            others = {k: v[index : index + 1] for k, v in batch.items() if k not in TOKENS and isinstance(v, Tensor)}
            said = _generate(model, end - start, input_ids=tokens[None, :start], **others)[0, start:]
            counted = [place - start for place in places if start <= place < end]
            yield start, tokens[start:end].tolist(), counted, said.tolist()


def _decoded(model: Any, batch: Mapping[str, Any]) -> Iterator[_Sequence]:
    """Each answer of an encoder-decoder, from its start token."""
    inputs = {key: value for key, value in batch.items() if key not in ("labels", "decoder_input_ids")}
    for index, row in enumerate(batch["labels"]):
        truth = row.tolist()
        end = _end(truth, 0, model)
        while end and truth[end - 1] == IGNORED:
            end -= 1
        one = {key: value[index : index + 1] for key, value in inputs.items() if isinstance(value, Tensor)}
        said = _generate(model, end, **one)[0, 1:]
        yield 1, truth[:end], [at for at in range(end) if truth[at] != IGNORED], said.tolist()


def _end(tokens: list[int], start: int, model: Any) -> int:
    """Where a sequence ends: behind its first end token after the prompt."""
    ends = _ends(model)
    return next((at + 1 for at in range(start, len(tokens)) if tokens[at] in ends), len(tokens))


def _ends(model: Any) -> list[int]:
    end = model.generation_config.eos_token_id
    return [] if end is None else list(end) if isinstance(end, (list, tuple)) else [end]


def _generate(model: Any, count: int, **inputs: Any) -> Tensor:
    """``count`` tokens, each the likeliest: whatever else the model's own settings say about sampling."""
    import transformers

    settings: Any = transformers.GenerationConfig
    own, ends = model.generation_config, _ends(model)
    names = ("bos_token_id", "eos_token_id", "decoder_start_token_id")
    ids = {name: getattr(own, name, None) for name in names}
    padding = own.pad_token_id if own.pad_token_id is not None else (ends or [0])[0]
    greedy = settings(max_new_tokens=count, do_sample=False, num_beams=1, pad_token_id=padding, **ids)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        said: Tensor = model.generate(generation_config=greedy, **inputs)
    return said


def brings_data(model: Any) -> bool:
    """Never: a model holds none."""
    return False


@contextlib.contextmanager
def prepared(subject: Subject, settings: OverfitSettings) -> Iterator[Subject]:
    """The subject itself; once trained it can be asked to generate."""
    yield replace(subject, generated=partial(said_again, subject.model))
