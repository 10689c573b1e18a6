"""Run directories: one job each, killed at any moment and continued by the same command.

A directory holds `run.json` (what the job is), `lock`, `memo.jsonl` (paid-for answers, never dropped) and per stage
`checkpoint.pt` and `journal.jsonl`. State is data; a resumed stage drops the journal lines its checkpoint had not
seen and writes them again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import filelock

from sartor.core.errors import UserError
from sartor.core.progress import Progress
from sartor.core.types import Json

if TYPE_CHECKING:
    import numpy as np

SCHEMA = 1
logger = logging.getLogger("sartor")


class Stateful(Protocol):
    """Anything with a state made of tensors, numbers, strings, lists and dictionaries."""

    def state_dict(self) -> Any: ...
    def load_state_dict(self, state: Any, /) -> Any: ...


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, data: Json) -> None:
    """Atomic, sorted, indented JSON; a number that is none (NaN, infinity) becomes null, which other programs read."""
    write_atomic(path, (json.dumps(strict(data), indent=2, sort_keys=True, allow_nan=False) + "\n").encode())


def strict(data: Json) -> Json:
    """The data with null for floats that JSON does not have."""
    if isinstance(data, float) and not math.isfinite(data):
        return None
    if isinstance(data, Mapping):
        return {key: strict(value) for key, value in data.items()}
    return [strict(value) for value in data] if isinstance(data, list | tuple) else data


def read_json(path: Path) -> Json:
    """Raises UserError when the file is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"there is no file {path}; check the path.") from None
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); give a file that can be read.") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged or not JSON ({error}); restore it or start in a new directory.") from None


def read_lines(path: Path) -> list[dict[str, Json]]:
    """The complete lines of a JSON-lines file; a line torn by a kill is not there yet."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    try:
        found = [json.loads(line) for line in lines]
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); restore it or start in a new directory.") from None
    if not all(isinstance(line, dict) for line in found):
        raise UserError(f"{path} is damaged (a line is no object); restore it or start in a new directory.")
    return found


_CHEAP = ("run.json", "lock", "fit.json", "predictor-*.safetensors", "*/journal.jsonl")


def _ours(file: Path) -> bool:
    """Whether a file is what a kill leaves of a run that had not begun."""
    return file.name == "lock" or (file.name.startswith(".run.json.") and file.suffix == ".part")


class Run:
    """A directory that holds one job. Use as a context manager; `stage` gives each loop its own place.

    path: the directory; job: JSON that says what the job is (compared on resume); seed: root of all randomness.
    Raises UserError for a directory of another job, one in use, or a damaged one. A job that ends with a UserError in
    its first sitting leaves nothing behind unless it holds what was paid for, so that a corrected one can have the
    directory.
    """

    checkpoint_seconds: float = 20.0

    def __init__(self, path: Path | str, job: Mapping[str, Json], seed: int = 0) -> None:
        self.path = Path(path)
        self.job, self.seed = dict(job), seed
        self._names: tuple[str, ...] = ()
        self._root = self
        self._memo: dict[str, Json] | None = None
        self._lock: filelock.BaseFileLock | None = None
        self._fresh = self._follows = False

    # ------------------------------------------------------------------ opening

    def __enter__(self) -> Self:
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"{self.path} is a file; give a directory for the run.")
        known = self.path / "run.json"
        try:
            if self.path.is_dir() and not known.exists() and not all(map(_ours, self.path.iterdir())):
                raise UserError(f"{self.path} holds files but no run; give an empty or a new directory.")
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / "lock", timeout=0)
            lock.acquire()
        except OSError as error:  # filelock.Timeout is one
            if not isinstance(error, filelock.Timeout):
                raise UserError(
                    f"cannot write the run {self.path} ({error.strerror}); give a directory that can be written."
                ) from None
            raise UserError(
                f"run {self.path} is in use by {self._owner()}; wait for it or use another --run."
            ) from None
        self._lock = lock
        try:
            identity = strict({"schema": SCHEMA, "job": self.job, "seed": self.seed})
            if known.exists():
                self._compare(read_json(known), json.loads(json.dumps(identity)))
            else:
                write_json(known, identity)
                self._fresh = True
            write_json(self.path / "owner.json", {"pid": os.getpid(), "host": socket.gethostname()})
        except BaseException:
            lock.release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._lock is not None:
            (self.path / "owner.json").unlink(missing_ok=True)
            if self._fresh and isinstance(error, UserError):
                self._forget()
            self._lock.release()
            self._lock = None

    def _owner(self) -> str:
        try:
            owner = json.loads((self.path / "owner.json").read_text())
            return f"process {owner['pid']} on {owner['host']}"
        except (OSError, ValueError, LookupError, TypeError):  # it comes or goes right now
            return "another process"

    def _forget(self) -> None:
        """Remove the run if the same command writes all that it holds again in seconds."""
        files = [p for p in self.path.rglob("*") if not p.is_dir()]
        if all(any(p.match(pattern) for pattern in _CHEAP) for p in files):
            shutil.rmtree(self.path)

    def _compare(self, found: Json, wanted: Json) -> None:
        if not isinstance(found, dict) or found.get("schema") != SCHEMA:
            raise UserError(f"{self.path}/run.json is not one this version reads (schema {SCHEMA}); use another --run.")
        if found == wanted:
            return
        if not isinstance(found.get("job"), dict):
            raise UserError(f"{self.path}/run.json is damaged: it holds no job; start in a new directory.")
        before, now = {**found["job"], "seed": found.get("seed")}, {**wanted["job"], "seed": wanted["seed"]}
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                was, given = before.get(key), now.get(key)
                if isinstance(was, dict) and isinstance(given, dict):
                    apart = [k for k in sorted(was.keys() | given.keys()) if was.get(k) != given.get(k)]
                    was, given = ({k: one.get(k) for k in apart} for one in (was, given))
                raise UserError(
                    f"run {self.path} is of another job: its {key} is {json.dumps(was)}, given is {json.dumps(given)}; "
                    "use the same command to resume, or another --run."
                )

    # ------------------------------------------------------------------ stages and randomness

    def stage(self, name: str) -> Run:
        """A part of the job with its own checkpoint, journal and random streams, in a sub-directory."""
        part = Run.__new__(Run)
        part.__dict__.update(self.__dict__)
        part.path, part._names = self.path / name, (*self._names, name)
        return part

    def follower(self) -> Run:
        """This stage for another process of the job: it has the streams, and `steps` restores and writes nothing."""
        part = Run(self.path.absolute(), self.job, self.seed)  # a new process may begin elsewhere
        part._names, part._follows = self._names, True
        return part

    def rng(self, *names: str | int) -> np.random.Generator:
        """A random stream that is a pure function of the seed and the names."""
        import numpy as np  # names and help do without

        return np.random.default_rng(self._entropy(*names))

    def torch_seed(self, *names: str | int) -> int:
        """A seed for `torch.manual_seed` or a `torch.Generator`, a pure function of the seed and the names."""
        return self._entropy(*names)[0] & (2**63 - 1)

    def _entropy(self, *names: str | int) -> list[int]:
        text = json.dumps([self.seed, *self._names, *names])
        digest = hashlib.sha256(text.encode()).digest()
        return [int.from_bytes(digest[i : i + 8], "little") for i in (0, 8, 16, 24)]

    # ------------------------------------------------------------------ loops

    def steps(self, total: int, **state: Stateful) -> Iterator[int]:
        """Yield the steps not yet done, with checkpoints of `state` between them.

        A checkpoint is written at most every `checkpoint_seconds` and after the last step; the same call after a
        kill restores `state` and goes on. Whatever a step does must depend on `state` and on named streams alone.
        """
        checkpoint, journal = self.path / "checkpoint.pt", self.path / "journal.jsonl"
        if self._follows:
            yield from range(self._load(checkpoint, state)[0] if checkpoint.exists() else 0, total)
            return
        self.path.mkdir(parents=True, exist_ok=True)
        for unfinished in self.path.glob(f".{checkpoint.name}.*.part"):  # a kill left it, and it may be large
            unfinished.unlink()
        first = 0
        if checkpoint.exists():
            first = self._restore(checkpoint, journal, total, state)
        elif journal.exists():
            journal.unlink()
        saved = time.monotonic()
        bar = Progress(self._names[-1] if self._names else "run", total, first)
        try:
            for step in range(first, total):
                yield step
                bar.advance()
                if step + 1 == total or time.monotonic() - saved >= self.checkpoint_seconds:
                    self._save(checkpoint, journal, step + 1, state)
                    saved = time.monotonic()
        finally:
            bar.close()

    def _save(self, checkpoint: Path, journal: Path, step: int, state: Mapping[str, Stateful]) -> None:
        import io

        import torch

        buffer, size = io.BytesIO(), 0
        if journal.exists():
            with journal.open("rb") as lines:
                os.fsync(lines.fileno())  # a checkpoint never counts lines that a power cut may take
                size = os.fstat(lines.fileno()).st_size
        torch.save(
            {
                "schema": SCHEMA,
                "step": step,
                "journal": size,
                "state": {name: thing.state_dict() for name, thing in state.items()},
            },
            buffer,
        )
        write_atomic(checkpoint, buffer.getvalue())

    def _load(self, checkpoint: Path, state: Mapping[str, Stateful]) -> tuple[int, int]:
        """Restore `state`; the steps done, and the size of the journal by then."""
        import torch

        try:
            saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
            step, size, states = int(saved["step"]), int(saved["journal"]), saved["state"]
            for name, thing in state.items():
                thing.load_state_dict(states[name])
        except Exception as error:
            detail = str(error).partition("\n")[0][:200]
            raise UserError(f"{checkpoint} is damaged or of another job ({detail}); start in a new --run.") from None
        return step, size

    def _restore(self, checkpoint: Path, journal: Path, total: int, state: Mapping[str, Stateful]) -> int:
        step, size = self._load(checkpoint, state)
        if (journal.stat().st_size if journal.exists() else 0) < size:
            raise UserError(
                f"{journal} is damaged: it lacks lines that {checkpoint.name} counts; start in a new --run."
            )
        if size:
            os.truncate(journal, size)
        else:
            journal.unlink(missing_ok=True)
        if 0 < step < total:
            logger.info("resuming %s at step %d of %d", self.path, step, total)
        return step

    def log(self, event: str, **fields: Json) -> None:
        """One line to the journal of this stage, and, but for lists, to the log."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "journal.jsonl").open("ab") as out:
            out.write((json.dumps({"event": event, **fields}) + "\n").encode())
        # `epoch 9  loss ...`, not `epoch  epoch 9  loss ...`
        said = {event: "", **{k: v for k, v in fields.items() if not isinstance(v, list)}}
        logger.info(
            "%s", "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}".strip() for k, v in said.items())
        )

    def journal(self) -> list[dict[str, Json]]:
        """The lines of this stage so far."""
        return read_lines(self.path / "journal.jsonl")

    # ------------------------------------------------------------------ paid-for answers

    def memo(self, key: str, compute: Callable[[], Json]) -> Json:
        """The answer stored under `key`, computed once: it is on disk before it is used."""
        answers, name = self._answers(), "/".join((*self._names, key))
        if name not in answers:
            value = compute()
            with (self._root.path / "memo.jsonl").open("ab") as out:
                out.write((json.dumps({"key": name, "value": value}) + "\n").encode())
                out.flush()
                os.fsync(out.fileno())
            answers[name] = json.loads(json.dumps(value))
        return answers[name]

    def remembers(self, key: str) -> bool:
        """Whether `memo` has an answer under `key`."""
        return "/".join((*self._names, key)) in self._answers()

    def _answers(self) -> dict[str, Json]:
        root = self._root
        file = root.path / "memo.jsonl"
        if root._memo is None:
            whole = file.read_bytes() if file.exists() else b""
            if whole and not whole.endswith(b"\n"):
                with file.open("rb+") as lines:
                    lines.truncate(whole.rfind(b"\n") + 1)
            try:
                root._memo = {line["key"]: line["value"] for line in read_lines(file)}
            except KeyError:
                raise UserError(f"{file} is damaged (a line lacks its key); start in a new directory.") from None
        return root._memo
