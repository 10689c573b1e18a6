"""Where measurements live: one SQL database, SQLite unless a team shares another, many processes writing at once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import sqlalchemy as sql
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.schema import CreateTable

from sartor.core import Architecture, F, SearchSpace
from sartor.core.errors import UserError
from sartor.core.method import Measurement

SCHEMA = 2
BUSY_S = 60.0
"""How long a writer waits for the others; a write takes milliseconds."""

_metadata = sql.MetaData()
_about = sql.Table(
    "sartor", _metadata, sql.Column("id", sql.Integer, primary_key=True), sql.Column("schema", sql.Integer)
)
_networks = sql.Table(
    "networks",
    _metadata,
    sql.Column("space", sql.String(64), primary_key=True),
    sql.Column("key", sql.String(64), primary_key=True),
    sql.Column("architecture", sql.JSON, nullable=False),
    comment="which architecture of which space a network is: one network may belong to several spaces",
)
_measurements = sql.Table(
    "measurements",
    _metadata,
    sql.Column("key", sql.String(64), primary_key=True),
    sql.Column("target", sql.String(250), primary_key=True),
    sql.Column("metric", sql.String(64), primary_key=True),
    sql.Column("sitting", sql.String(64), primary_key=True),
    sql.Column("value", sql.Float, comment="null for a failure"),
    sql.Column("samples", sql.JSON, nullable=False),
    sql.Column("reference", sql.JSON, nullable=False),
    sql.Column("conditions", sql.JSON, nullable=False),
    sql.Column("error", sql.Text),
    sql.Column("anchor", sql.Float, comment="of the reference; null before it was steady, and where there is none"),
    sql.Column("created", sql.String(32), nullable=False),
)
_anchors = sql.Table(
    "anchors",
    _metadata,
    sql.Column("target", sql.String(250), primary_key=True),
    sql.Column("metric", sql.String(64), primary_key=True),
    sql.Column("reference", sql.String(64), primary_key=True),
    sql.Column("value", sql.Float, nullable=False),
    comment="what a reference network cost when it was first measured undisturbed",
)
_row = _measurements.c


class Store:
    """Measurements by network key, target id, metric and sitting (the name of one measuring pass).

    where: a file for SQLite, or any SQLAlchemy URL (`postgresql+psycopg://host/sartor`). Use as a context manager or
    call `close`. Raises UserError for a place that cannot be opened and for a schema of another version.
    """

    def __init__(self, where: str | Path) -> None:
        self.where = str(where)
        try:
            url = sql.make_url(self.where) if "://" in self.where else sql.URL.create("sqlite", database=self.where)
            path = Path(url.database) if url.drivername.startswith("sqlite") and url.database else None
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                if path.is_dir():
                    raise IsADirectoryError(f"{path} is a directory")
            self._engine = sql.create_engine(url, connect_args={} if path is None else {"timeout": BUSY_S})
            # Switching to WAL and creating tables do not wait for each other, so one process at a time does them.
            with contextlib.nullcontext() if path is None else filelock.FileLock(f"{path}.lock"):
                self._prepare()
        except (OSError, ImportError, SQLAlchemyError) as error:
            first = str(error).partition("\n")[0][:200]
            raise UserError(
                f"cannot open the measurements in {self.where} ({first}); give a file that can be written, "
                "or an SQLAlchemy URL whose driver is installed."
            ) from None

    def _prepare(self) -> None:
        if sql.inspect(self._engine).has_table(_about.name):  # what another version wrote stays untouched
            self._check_schema()
        if self._engine.dialect.name == "sqlite":
            with self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        with self._engine.begin() as connection:
            for table in _metadata.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))
        _insert(self._engine, _about, {"id": 1, "schema": SCHEMA})
        self._check_schema()

    def _check_schema(self) -> None:
        with self._engine.connect() as connection:
            found = connection.execute(sql.select(_about.c.schema)).scalar_one_or_none()
        if found not in (SCHEMA, None):  # None: another process is at it right now
            self.close()
            raise UserError(
                f"the measurements in {self.where} have schema {found}, this version reads {SCHEMA}; "
                "use the version that wrote them, or another file."
            )

    def close(self) -> None:
        """Give back connections and files."""
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ writing

    def register(self, space: SearchSpace, archs: Iterable[Sequence[int]]) -> None:
        """Say which networks these architectures are, so that `table` finds what was measured for another space."""
        wanted = {space.key(arch): list(space.canonical(arch)) for arch in archs}
        with self._engine.connect() as connection:
            query = sql.select(_networks.c.key).where(_networks.c.space == space.id)
            there = set(connection.execute(query).scalars())
        rows = [{"space": space.id, "key": key, "architecture": arch} for key, arch in wanted.items()]
        new = [row for row in rows if row["key"] not in there]
        if new and not _insert(self._engine, _networks, *new):  # another process registers some of them right now
            for row in new:
                _insert(self._engine, _networks, row)

    def add(self, target_id: str, found: Measurement, sitting: str = "default", *, replace: bool = False) -> None:
        """Write one measurement. What is there already stays, except a failure, or anything if `replace`."""
        identity = {"key": found.key, "target": target_id, "metric": found.metric, "sitting": sitting}
        content = {
            "value": found.value if found.samples else None,
            "samples": list(found.samples),
            "reference": list(found.reference),
            "conditions": dict(found.conditions),
            "error": found.error,
            "anchor": found.anchor,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if not _insert(self._engine, _measurements, identity | content):
            there = [_measurements.c[name] == value for name, value in identity.items()]
            old = [] if replace else [_row.error.is_not(None)]
            with self._engine.begin() as connection:
                connection.execute(sql.update(_measurements).where(*there, *old).values(**content))

    def anchor(self, target_id: str, found: Measurement) -> float | None:
        """What the reference network beside this measurement cost when it was first measured undisturbed.

        That moment may be this one. None while there was no such moment, and where there is no reference.
        """
        reference = found.conditions.get("reference_network")
        if reference is None or not found.reference:
            return None
        identity = {"target": target_id, "metric": found.metric, "reference": reference}
        first = self.anchors(target_id, found.metric).get(reference)
        if first is None and not found.steady:
            return None
        if first is None and _insert(self._engine, _anchors, identity | {"value": min(found.reference)}):
            return min(found.reference)
        return self.anchor(target_id, found) if first is None else first  # None: another process was first

    def anchors(self, target_id: str, metric: str) -> dict[str, float]:
        """What reference networks cost when they were first measured undisturbed, by network key."""
        query = sql.select(_anchors.c.reference, _anchors.c.value)
        with self._engine.connect() as connection:
            rows = connection.execute(query.where(_anchors.c.target == target_id, _anchors.c.metric == metric))
            return {row.reference: float(row.value) for row in rows}

    # ------------------------------------------------------------------ reading

    def known(
        self, archs: Mapping[str, Architecture], target_id: str, metrics: Sequence[str], sitting: str = "default"
    ) -> dict[tuple[str, str], Measurement]:
        """What is stored of these networks (key -> architecture), by (key, metric); failures included."""
        query = sql.select(_measurements).where(_row.target == target_id, _row.sitting == sitting)
        found = {}
        for row in self._select(query.where(_row.metric.in_(metrics)), _row.key, list(archs)):
            found[row.key, row.metric] = Measurement(
                row.key,
                archs[row.key],
                row.metric,
                tuple(row.samples),
                tuple(row.reference),
                row.conditions,
                row.error,
                row.anchor,
            )
        return found

    def table(
        self, space: SearchSpace, target_id: str, metric: str, sitting: str | None = None
    ) -> tuple[list[Architecture], F]:
        """Architectures of a space and their values, without failures, in lexicographic order.

        sitting: one measuring pass; None takes all, and the median of networks measured in several.
        """
        query = (
            sql.select(_networks.c.architecture, _row.value)
            .join(_measurements, _networks.c.key == _row.key)
            .where(_networks.c.space == space.id, _row.target == target_id, _row.metric == metric)
            .where(_row.error.is_(None), *([] if sitting is None else [_row.sitting == sitting]))
        )
        values: dict[Architecture, list[float]] = {}
        with self._engine.connect() as connection:
            for arch, value in connection.execute(query):
                values.setdefault(tuple(arch), []).append(value)
        archs = sorted(values)
        return archs, np.array([float(np.median(values[arch])) for arch in archs])

    def sittings(self, target_id: str | None = None) -> list[dict[str, Any]]:
        """What is there: target, metric, sitting, and numbers of `measured` and `failed` networks."""
        count = sql.func.count
        columns = (_row.target, _row.metric, _row.sitting)
        query = sql.select(*columns, count(_row.value).label("measured"), count(_row.error).label("failed"))
        if target_id is not None:
            query = query.where(_row.target == target_id)
        with self._engine.connect() as connection:
            return [dict(row._mapping) for row in connection.execute(query.group_by(*columns).order_by(*columns))]

    def _select(self, query: sql.Select[Any], column: sql.Column[Any], values: Sequence[str]) -> Iterator[sql.Row[Any]]:
        """Rows whose column is one of many values: databases limit how many fit into one query."""
        with self._engine.connect() as connection:
            for first in range(0, len(values), 500):
                yield from connection.execute(query.where(column.in_(values[first : first + 500])))


def _insert(engine: sql.Engine, table: sql.Table, *rows: Mapping[str, Any]) -> bool:
    """Insert rows in a transaction of their own; False, and none, when the key of one is there already."""
    try:
        with engine.begin() as connection:
            connection.execute(sql.insert(table), rows)
    except IntegrityError:
        return False
    return True
