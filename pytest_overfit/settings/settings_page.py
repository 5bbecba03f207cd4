"""The page of all settings, ``docs/settings.md``, rendered from their one table."""

from __future__ import annotations

from pytest_overfit.settings.keywords import CONFIG, LIMIT, OF_A_CONFIG, SETTINGS, Setting

_HEAD = """\
# Settings

Every setting has one name in `@pytest.mark.overfit(...)`, `overfit(...)` and `run_overfit(...)`, and one key
below `overfit:` in a config file. Each value comes from the strongest place that gives it:

defaults < ini file < config file < command line < marker < call

`pytest --overfit-explain` shows every value and where it comes from. An unknown or misspelt name is an error
that names the nearest valid one.

| keyword | key in a config | allowed | default | what it does |
|---|---|---|---|---|
"""
_BELOW_THE_TABLE = f"""
A default with two values is that of a run without a config, then that of a run with one.

The marker alone takes `{CONFIG.name}="path/to/config.yaml"`: {CONFIG.help} ({CONFIG.kind}).
"""
_ALONE = """
These keys are a config's alone:

| key in a config | allowed | default | what it does |
|---|---|---|---|
"""
_LIMITS = f"""
## Limits

Any other keyword is a limit on the loss term of that name (`loss_T=0.001`, `accuracy={{"above": 0.99}}`); in a
config it stands below `overfit.criteria.terms`, and `camera` and `depth` below `overfit.criteria`. A limit is
`{LIMIT}`.

- `below`, `above`: what the term has to get under, or over; at least one of them.
- `relative: true`: both are shares of the term's start, which must be above 0.
- A default is one that nobody chose for this loss: a pass by it that takes less than half of the term's start is none.
  Under a stated limit such a pass says so in its first line.
- `False`, or null in a config, switches a limit off; one at least has to be left. `None` in a call or marker says
  nothing: the default holds.
- `window: 20`: the mean over the latest 20 steps is compared, not the last step alone.
"""
_SECONDS = """
## Seconds

`max_seconds` counts from before anything of yours is called: drawing the loader, a model factory, the probe of the
loss, training, validation and the last look at the model are all within it, one limit per seed. Of a config, building
the model and each drawing of its data have as many seconds of their own.

- A run that is merely slow is **cut short** after the step that passes the limit. The diagnosis then has what is
  left, at least one second; `diagnose_seconds` gives it a time of its own.
- Code that does not come back is **stopped** two seconds later, or one and a half times its slowest step where that is
  longer: a sleep, a lock, a queue, a loop, a worker of a loader. The run is red (`HUNG`), the report names your line
  and those around it, model, optimizer and random generators come back as they were, and the next test runs. One seed
  that hangs is red whatever `pass_at_least` says.
- A diagnosis that hangs is stopped in the same way, also without `max_seconds` (then ten seconds after its own time).
  The verdict of the criteria stands, and the report says what was not asked.
- What keeps even that exception (`except BaseException` in a loop), or hangs in C code, cannot be stopped. Four seconds
  after the limit the session writes the stack to stderr and the line into the record (`killed`), ends its child
  processes, and leaves with exit code 1. Nothing after that is run: no summary is printed, and JUnit has no file.
  Under pytest-xdist that worker is reported as crashed. `run_overfit` outside of pytest never ends a process: it tells
  the stack on stderr.

A debugger is left alone. pytest-timeout may be used beside it; with pytest's `faulthandler_timeout` C code that holds
the interpreter is left to that. Windows, and a run off the main thread, have the second way only. Under torchrun the
ranks look after each other (docs/distributed.md). Without `max_seconds` a run may take for ever.
"""
_OPTIONS = """
## Options and ini keys

Each option has an ini key of the same name with underscores (`overfit_max_steps`). Any key is set by
`--overfit-set overfit.<key>=<value>`, or in the ini file by lines of `overfit_set`. A config file wins over the
ini file, the command line over both.

| option | sets |
|---|---|
"""
_FILE = """
## What a config file may say

- A value that is impossible (a negative weight, NaN, a `valid_range` below 0.5, frames other than two) is an error.
- A certain misspelling is an error in every section. A key that nothing reads is a note with the nearest key that is
  read; the keys that only a trainer reads are one line.
- A pair has one source: settings of another one beside `overfit.pair.source` are an error, unless the command line or
  a marker states the source.
- `${...}` may expand to at most 10,000 values and 1,000,000 signs, 64 deep; a file has at most 10,000 of them.
- Whole numbers have at most 64 bits, in a file, an override and what `${...}` comes to.
- `overfit.pair.follow_links`: `false`, `true` (anywhere), or the folders that links out of the pair's may lead into.
- What came out of the environment (`${oc.env:...}`, texts of other resolvers, an override that is a variable's value)
  and texts whose key ends in token, password, secret, credential or key are shown as `***` in tables, notes, records
  and errors. Paths among them are named in the problems of their files. An `exp_name` with such a part is masked
  everywhere: `run-${oc.env:JOB}` is the run `run-***`, and its log folder is `run`.
"""
_STRICT = """
## Strict sessions

A skipped test is green. With `--overfit-strict` (ini: `overfit_strict = true`) whatever leaves an overfit test
unjudged is a failure. An overfit test is an item of a config, a test with the marker, or one that uses a
fixture of ours.

| what happened | under `--overfit-strict` |
|---|---|
| an overfit test was skipped: `pytest.skip`, `skip`, `skipif`, an `importorskip` in a fixture | it fails; not an \
item of a config that is skipped because another one has failed: the session is red already |
| a criterion could not be judged, or a question of the diagnosis broke by a mistake of ours | the test fails; else \
it is a note |
| a marked test runs nothing, and looks only at the data of the config that its marker names | it fails; else this \
may be |
| a test file that speaks of overfit skips itself as a whole | an error of the collection |
| an overfit test failed as its `xfail` expects | it fails: an expected miss is still a miss. A test that \
shows a miss on purpose says `with pytest.raises(AssertionError)` |
| no GPU was found | the run fails as under `--overfit-require-gpu`, unless its device is named: \
`--overfit-device cpu`, `device: cpu` in a config, `device="cpu"` in a marker or call |
| a run was interrupted | its test fails, whatever caught the interruption |
| the session was stopped with `pytest.exit` and exit code 0 | exit code 1 |
| not one criterion was judged in the session: nothing collected, everything deselected, only `config`, \
`pair` and `loader` ran, no call of `overfit` | exit code 1, and one line that says why |
| no term has a limit: every one is switched off, in a config, marker or call | a usage error, in every session |

In every session, strict or not, a test fails that judges nothing (one with the marker in which no run came to a
verdict, one that never calls the `overfit` that it is given) or that loses a miss: an AssertionError that it
catches (also where it skips itself then), an `overfit_result` whose miss it never looks at. A miss that is meant is
expected with `pytest.raises(AssertionError)`, `assertRaises`, or `assert overfit_result.finding("objective").missed`.
`assert not overfit_result.passed` cannot be told from `print(overfit_result.passed)`: it is a note, and red where the
session is strict.

Under pytest-xdist the workers fail their tests, and the controller decides whether anything was judged. Runs
of `run_overfit(...)` outside of our fixtures are not seen.
"""


def settings_page() -> str:
    """The text of the page.

    Example:
        >>> settings_page().splitlines()[0]
        '# Settings'
    """
    keywords = "".join(_row(setting) for setting in SETTINGS)
    options = "".join(f"| `{item.option}` | `overfit.{item.key}` |\n" for item in SETTINGS if item.option)
    alone = "".join(_row(setting) for setting in OF_A_CONFIG)
    return "".join(
        (_HEAD, keywords, _BELOW_THE_TABLE, _ALONE, alone, _LIMITS, _SECONDS, _OPTIONS, options, _FILE, _STRICT)
    )


def _row(setting: Setting) -> str:
    without, under = setting.default, setting.in_config
    default = under if not setting.name or without == under else f"{without}; {under}"
    names = [f"`{setting.name}`"] if setting.name else []
    cells = (*names, f"`{setting.key}`", setting.kind, default, setting.help)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"
