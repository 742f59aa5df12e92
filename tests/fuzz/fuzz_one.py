"""One target, fuzzed in this process until its time is up: `fuzz_one.py TARGET SEED SECONDS RESULT`.

What is fuzzed is imported under atheris, so that every branch of it is seen; where there is no atheris, Hypothesis
makes the inputs.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any, Final, NoReturn

CORPUS: Final = Path(__file__).parent / "corpus"
MOST_BYTES: Final = {"server": 2048, "client": 2048, "log": 6144}
LARGEST_SEED: Final = 2**31 - 1

Try = Callable[[bytes], None]


def corpus_of(name: str) -> list[bytes]:
    """Return the inputs that are kept for a target."""
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def timed(watch: Any, budget_s: float, result: Path) -> Try:
    """Return what tries one input, and ends the process with its figures in `result` when time is up."""
    end_s = monotonic() + budget_s

    def one(data: bytes) -> None:
        watch(data)
        if monotonic() > end_s:
            result.write_text(json.dumps(watch.figures.to_json()))
            os._exit(0)

    return one


def guided(name: str, seed: int, budget_s: float, result: Path) -> NoReturn:
    """Let atheris make the inputs; the code that is fuzzed reports where it went."""
    import atheris

    with atheris.instrument_imports(include=["minibrokerd", "minibroker"]):
        from watch import Watch

    one = timed(Watch(name), budget_s, result)
    with tempfile.TemporaryDirectory(prefix="minibroker-fuzz-") as found:
        options = [f"-seed={seed % LARGEST_SEED}", f"-max_len={MOST_BYTES[name]}", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *options, found, str(CORPUS / name)], one)
        atheris.Fuzz()
    raise AssertionError("the fuzzer ends the process")


def unguided(name: str, seed: int, budget_s: float, result: Path) -> NoReturn:
    """Let Hypothesis make the inputs."""
    import hypothesis
    from hypothesis import strategies as st
    from inputs import inputs
    from watch import Watch

    one = timed(Watch(name), budget_s, result)

    @hypothesis.settings(
        max_examples=10_000, database=None, deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(inputs(name, corpus_of(name)) | st.binary(max_size=MOST_BYTES[name]))
    def run(data: bytes) -> None:
        one(data)

    while True:
        hypothesis.seed(seed)(run)()
        seed += 1


def main() -> NoReturn:
    """Fuzz what the arguments say."""
    name, seed, budget_s, result = sys.argv[1:]
    fuzz = guided if find_spec("atheris") else unguided
    fuzz(name, int(seed), float(budget_s), Path(result))


if __name__ == "__main__":
    main()
