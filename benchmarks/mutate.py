"""Damaged files for every reader: what is not read has to end in our own error, in bounded time and memory, silently.

    python benchmarks/mutate.py [--cases 50000] [--seed 0] [--reader NAME] [--first N] [--keep DIR]

Sound files are mutated in their own structure (members, headers and steps of pickles, attributes and chunks under right
checksums, nodes and tokens) and in their bytes. A case is made of the seed, the reader and its number alone, so that
`--reader png --first 17 --cases 1` repeats one. Every reader runs in a process of its own that may take 1 GiB more than
it starts with, and 10 seconds of the processor a case. A case fails that ends in another error, a warning, a word on
the screen, a MemoryError inside, or the end of the process. `--keep` saves the files of those.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

from mutations import archives, pictures, texts

MOST_SECONDS = 10  # of the processor: others may use the machine too
HANGS = 180  # seconds on the clock
MOST_BYTES = 2**30
ROOT = Path(__file__).resolve().parents[1]
# Of 50,000 cases, how many go to a reader: the more of them, the more there is to mutate; configs are the slowest.
SHARES = {
    "index": 10, "camera": 6, "exr": 9, "jpeg": 6, "png": 7, "config": 2, "overrides": 2, "record": 4, "saved": 4,
}  # fmt: skip


@dataclass
class Reader:
    """Sound files, how they are damaged, and what reads them."""

    seeds: list[bytes]
    mutate: Callable[[bytes, Random], bytes]
    name: str
    read: Callable[[Path], object]


@dataclass
class Count:
    """What became of the cases of one reader."""

    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    mib: float = 0.0
    failures: list[tuple[int, str]] = field(default_factory=list)


def readers(folder: Path) -> dict[str, Reader]:
    """All readers, with sound files made in `folder`."""
    from pytest_overfit.errors import OverfitError
    from pytest_overfit.trainer.loading import load_config
    from pytest_overfit.two_view.pair.index import locate_pair, read_index
    from pytest_overfit.two_view.pair.readers import read_camera, read_depth, read_image, read_labels
    from pytest_overfit.two_view.pair.synthetic import render_source

    source = render_source(folder / "town", seed=1, width=64, height=48)
    views = locate_pair(source.source_root, source.source_npz, source.source_seg_root, 0).views
    configs = folder / "configs"
    shutil.copytree(ROOT / "example_configs", configs)

    def index(path: Path) -> object:
        table = read_index(path)
        return locate_pair(source.source_root, path, source.source_seg_root, 0, index=table)

    def image(path: Path) -> object:
        with contextlib.suppress(OverfitError):  # most pictures are no labels
            read_labels(path)
        return read_image(path)

    def overrides(path: Path) -> object:
        given = path.read_bytes().decode("utf-8", "surrogatepass").split("\0")
        return load_config(configs / "quick.yaml", given)

    def config(path: Path) -> object:
        return load_config(path)

    camera = [view.camera.read_bytes() for view in views]
    jpeg = [*pictures.jpeg_seeds(), views[0].image.read_bytes()]
    png = [*pictures.png_seeds(), views[0].mask.read_bytes() if views[0].mask else b""]
    yaml = [(configs / name).read_bytes() for name in ("quick.yaml", "single_pair_test.yaml", "real_pair.yaml")]
    lines = [
        "overfit.budget.max_steps=30", "optim.optimizer.lr=1e-3", "img_size=70", "overfit.seeds=[1,2]", "exp_name=a",
        "overfit.criteria.camera=0.1", "overfit.pair={source: render}", "logging.log_dir=x", "new.key.of.mine=1",
        "data.train.num_workers=0", "overfit.device=cpu", "max_epochs=100",
    ]  # fmt: skip
    return {
        "index": Reader(
            archives.seeds(source.source_npz.read_bytes(), views[0].scene), archives.mutate, "train.npz", index
        ),
        "camera": Reader(camera, archives.mutate, "a.npz", read_camera),
        "exr": Reader(pictures.exr_seeds(folder), pictures.exr, "a.exr", read_depth),
        "jpeg": Reader(jpeg, pictures.jpeg, "a.jpg", image),
        "png": Reader(png, pictures.png, "a.png", image),
        "config": Reader(yaml, texts.config, f"{configs}/mutated.yaml", config),
        "overrides": Reader(["\0".join(lines).encode()], texts.overrides, "overrides", overrides),
        **_readers_of_records(folder),
    }


def _readers_of_records(folder: Path) -> dict[str, Reader]:
    """Those of what a session leaves."""
    from pytest_overfit.report.ci.summary import summary_markdown
    from pytest_overfit.report.markdown.experiment import experiment_record
    from pytest_overfit.report.record.folder import read_document
    from pytest_overfit.report.record.saved import compare, read_saved

    record, saved = _recorded(folder)
    result = read_document(record).result
    assert result is not None

    def documents(path: Path) -> object:
        found = read_document(path)
        return experiment_record(found), summary_markdown([found])

    def runs(path: Path) -> object:
        found = read_saved(path)
        return [compare(found, run.title, run.call, result) for run in found.runs]

    return {
        "record": Reader([record.read_bytes()], texts.tree, "record.json", documents),
        "saved": Reader([saved.read_bytes()], texts.tree, "main.json", runs),
    }


def _recorded(folder: Path) -> tuple[Path, Path]:
    """The record and the saved runs of a short session."""
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    command = [
        sys.executable, "-m", "pytest", "-c", "pytest.ini", "-p", "no:cacheprovider",
        "--overfit-report", "report", "--overfit-save", "main",
        "--overfit-config", str(ROOT / "example_configs" / "quick.yaml"),
        "--overfit-set", "overfit.budget.max_steps=12", "--overfit-set", "overfit.diagnose_seconds=5",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    records, saved = [*folder.glob("report/runs/*/record.json")], folder / ".overfit" / "main.json"
    if len(records) != 1 or not saved.is_file():
        sys.exit(f"no record to start from:\n{done.stdout}{done.stderr}")
    return records[0], saved


def case_of(reader: Reader, name: str, seed: int, number: int) -> bytes:
    """The file of one case."""
    random = Random(f"{seed}/{name}/{number}")
    return reader.mutate(random.choice(reader.seeds), random)


def work(reader: Reader, name: str, seed: int, first: int, last: int, folder: Path, pipe: Connection) -> None:
    """Reads the cases from `first` to before `last`; tells of every one before and after it."""
    from pytest_overfit.errors import OverfitError

    os.chdir(folder)
    noise = (folder / "stderr").open("wb+", buffering=0)
    for descriptor in (1, 2):
        os.dup2(noise.fileno(), descriptor)
    base = int(Path("/proc/self/status").read_text().split("VmSize:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (base + MOST_BYTES, base + MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    started_with = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    warnings.simplefilter("error")
    path = folder / reader.name
    for number in range(first, last):
        data = case_of(reader, name, seed, number)
        path.write_bytes(data)
        pipe.send(("begin", number))
        outcome, began = "accepted", time.process_time()
        signal.alarm(HANGS)
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        try:
            reader.read(path)
        except OverfitError as error:
            outcome = "refused"
            if any(isinstance(link, MemoryError) for link in _chain(error)):
                outcome = f"MemoryError inside of: {error}"
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            outcome = f"{type(error).__name__}: {error!s:.150} ({Path(frame.filename).name}:{frame.lineno})"
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        seconds = time.process_time() - began
        sys.stdout.flush()
        if noise.tell():
            noise.seek(0)
            outcome = f"printed: {noise.read(200)!r}"
            noise.seek(0)
            noise.truncate()
        mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - started_with) / 1024
        pipe.send(("end", number, outcome, seconds, mib))
        if number % 200 == 0:
            gc.collect()
    pipe.send(("done",))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def run(reader: Reader, name: str, seed: int, first: int, cases: int, folder: Path) -> Count:
    """All cases of one reader; where the process ends in a case, the next one goes on behind it."""
    count, context = Count(), multiprocessing.get_context("fork")
    number, last = first, first + cases
    if not any(_is_read(reader, sound, folder / reader.name) for sound in reader.seeds):
        sys.exit(f"{name}: not one of the sound files is read")
    while number < last:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(reader, name, seed, number, last, folder, theirs))
        process.start()
        theirs.close()
        at = None
        while True:
            try:
                told = ours.recv()
            except EOFError:
                told = ("lost",)
            if told[0] == "begin":
                at = told[1]
            elif told[0] == "end":
                _, number, outcome, seconds, mib = told
                number, at = number + 1, None
                count.seconds, count.mib = max(count.seconds, seconds), max(count.mib, mib)
                if outcome == "accepted":
                    count.accepted += 1
                elif outcome == "refused":
                    count.refused += 1
                else:
                    count.failures.append((number - 1, outcome))
            else:
                break
        process.join()
        if told[0] == "lost":
            late = process.exitcode in (-signal.SIGALRM, -signal.SIGPROF)
            why = f"not back in {MOST_SECONDS} s" if late else f"ended: {process.exitcode}"
            if at is None:
                sys.exit(f"{name}: the process was lost between two cases ({why})")
            count.failures.append((at, why))
            number = at + 1
    return count


def _is_read(reader: Reader, data: bytes, path: Path) -> bool:
    from pytest_overfit.errors import OverfitError

    path.write_bytes(data)
    try:
        reader.read(path)
    except OverfitError:
        return False
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=50_000, help="of all readers together; of one with --reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", choices=SHARES, action="append")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--keep", type=Path, help="folder for the files that failed")
    parser.add_argument("--shown", type=int, default=12, help="kinds of failures that are printed per reader")
    options = parser.parse_args()
    chosen = options.reader or list(SHARES)
    total = sum(SHARES[name] for name in chosen)
    counts: dict[str, Count] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = readers(folder)
        print(
            f"{'reader':10}{'cases':>8}{'accepted':>10}{'refused':>9}{'failed':>8}{'longest':>10}{'largest':>10}",
            flush=True,
        )
        for reader in chosen:
            cases = -(-options.cases * SHARES[reader] // total)
            counts[reader] = count = run(found[reader], reader, options.seed, options.first, cases, folder)
            print(_line(reader, count), flush=True)
            for why, numbers in _kinds(count)[: options.shown]:
                print(
                    f"    {len(numbers)} x {why}   (first: --reader {reader} --first {numbers[0]} --cases 1)",
                    flush=True,
                )
            if options.keep is not None and count.failures:
                options.keep.mkdir(parents=True, exist_ok=True)
                for number, _ in count.failures:
                    data = case_of(found[reader], reader, options.seed, number)
                    (options.keep / f"{reader}-{options.seed}-{number}").write_bytes(data)
    print(_line("total", _sum(counts.values())))
    sys.exit(1 if any(count.failures for count in counts.values()) else 0)


def _line(name: str, count: Count) -> str:
    failed = len(count.failures)
    cases = count.accepted + count.refused + failed
    return f"{name:10}{cases:8}{count.accepted:10}{count.refused:9}{failed:8}{count.seconds:8.2f} s{count.mib:6.0f} MiB"


def _sum(counts: Any) -> Count:
    total = Count()
    for count in counts:
        total.accepted += count.accepted
        total.refused += count.refused
        total.failures += count.failures
        total.seconds, total.mib = max(total.seconds, count.seconds), max(total.mib, count.mib)
    return total


def _kinds(count: Count) -> list[tuple[str, list[int]]]:
    """Failures by their first words, the most frequent first."""
    found: dict[str, list[int]] = {}
    for number, why in count.failures:
        place = why[why.rindex("(") :] if why.endswith(")") else ""
        found.setdefault(f"{why.partition(':')[0]} {place}" if place else why[:60], []).append(number)
    whys = dict(count.failures)
    return [(whys[numbers[0]], numbers) for _, numbers in sorted(found.items(), key=lambda item: -len(item[1]))]


if __name__ == "__main__":
    main()
