"""Public tables as spaces and scores: what is read, what is left out, and the one line said about what cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sartor import spaces, tables
from sartor.core import UserError
from sartor.spaces.tabled import averages
from sartor.tables import Table
from sartor.tables.table import metric_of
from tests.contracts.spaces import check_space
from tests.test_data_sources import SARTOR_DATA, needs_data

TABLED = ("fbnet", "ofa-mobilenetv3", "hat")
HAT = {
    "set": "here",
    "encoder_embed_dim": 640,
    "encoder_layer_num": 6,
    "encoder_ffn_embed_dim_avg": 1962.6666,
    "encoder_self_attention_heads_avg": 6.0,
    "decoder_embed_dim": 512,
    "decoder_layer_num": 4,
    "decoder_ffn_embed_dim_avg": 1920.0,
    "decoder_self_attention_heads_avg": 2.5,
    "decoder_ende_attention_heads_avg": 5.5,
    "decoder_arbitrary_ende_attn_avg": 1.5,
    "latency_mean_encoder": 5.5,
}


def parquet(place: Path, rows: list[dict[str, Any]]) -> Path:
    pd.DataFrame(rows).to_parquet(place / "table.parquet")
    return place / "table.parquet"


def refused(attempt: Any, *words: str) -> None:
    with pytest.raises(UserError) as error:
        attempt()
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value), error.value


@pytest.mark.parametrize("name", TABLED)
def test_spaces_of_tables_keep_the_contract_and_build_nothing(name: str) -> None:
    space = spaces.get(name)
    check_space(space, networks=False)
    refused(lambda: space.network(space.sample(np.random.default_rng(0), 1)[0]), name, "sartor bench", "mobilenet")
    refused(lambda: space.inputs(1), name)


def test_sizes_are_the_published_ones() -> None:
    assert spaces.get("nas-bench-macro").size == 3**8
    assert spaces.get("fbnet").size == 9**22
    assert spaces.get("ofa-mobilenetv3").size == 25 * 7371**5


@pytest.mark.parametrize("name", ["fbnet", "ofa-mobilenetv3"])
def test_features_tell_all_candidates_apart_whatever_they_cost(name: str) -> None:
    for slot in spaces.get(name).slots:
        if slot.features is not None and slot.name != "resolution":
            with_constant = np.column_stack([np.ones(len(slot)), slot.features])
            assert np.linalg.matrix_rank(with_constant) == len(slot)


def test_macro_from_csv_keeps_leading_zeros(tmp_path: Path) -> None:
    file = tmp_path / "macro.csv.gz"
    pd.DataFrame({"arch": ["00000012", "20000000"], "mean_acc": [50.0, 60.0], "flops": [7, 9]}).to_csv(
        file, index=False
    )
    table = tables.load("nas-bench-macro", file)
    assert list(table.row) == [(0, 0, 0, 0, 0, 0, 1, 2), (2, 0, 0, 0, 0, 0, 0, 0)]
    assert table.score("mean_acc")(list(table.row)).tolist() == [50.0, 60.0]
    assert table.score("flops").metric.name == "macs"


def test_operators_of_fbnet(tmp_path: Path) -> None:
    table = tables.load("fbnet", parquet(tmp_path, [{"op_idx": "8 " * 21 + "3", "pi_ms": 2.5}]))
    (arch,) = table.row
    chosen = [slot.candidates[k] for slot, k in zip(table.space.slots, arch)]
    assert chosen == ["skip"] * 21 + ["k3_e6"]
    assert table.score("pi_ms")([arch]).tolist() == [2.5]


def ofa(**changes: Any) -> dict[str, Any]:
    row = {"ks": "7 5 3 3 " + "3 " * 16, "e": "6 4 3 3 " + "3 " * 16, "d": "3 2 2 2 4", "r": 224, "gpu_ms": 4.0}
    return {**row, **changes}


def test_layers_beyond_the_depth_do_not_count(tmp_path: Path) -> None:
    other = ofa(ks="7 5 3 7 " + "3 " * 16, gpu_ms=6.0)  # the fourth kernel of a unit of three
    table = tables.load("ofa-mobilenetv3", parquet(tmp_path, [ofa(), other, ofa(r=128, gpu_ms=1.0)]))
    assert (len(table.row), table.repeated) == (2, 1)
    assert table.score("gpu_ms")(list(table.row)).tolist() == [5.0, 1.0]
    first = next(iter(table.row))
    assert table.space.to_json(first)["choices"] == {
        "resolution": "224",
        "depth0": "3",
        "kernel0.0": "7",
        "expansion0.0": "6",
        "kernel0.1": "5",
        "expansion0.1": "4",
        "kernel0.2": "3",
        "expansion0.2": "3",
        **{f"depth{u}": d for u, d in zip(range(1, 5), "2224")},
        **{f"{w}{u}.{n}": "3" for u in range(1, 5) for n in range(4 if u == 4 else 2) for w in ("kernel", "expansion")},
    }


def test_hat_tells_devices_apart_and_averages_of_a_depth(tmp_path: Path) -> None:
    there = {**HAT, "set": "there", "latency_mean_encoder": 90.0}
    deeper = {**there, "decoder_layer_num": 1, "decoder_ffn_embed_dim_avg": 1024.0}
    deeper |= {"decoder_self_attention_heads_avg": 2.0, "decoder_ende_attention_heads_avg": 8.0}
    deeper |= {"decoder_arbitrary_ende_attn_avg": 3.0, "latency_mean_encoder": 70.0}
    table = tables.load("hat", parquet(tmp_path, [HAT, there, deeper]))
    assert set(table.columns) == {"here_latency_mean_encoder", "there_latency_mean_encoder"}
    archs = list(table.row)
    assert table.score("there_latency_mean_encoder")(archs).tolist() == [90.0, 70.0]
    assert table.score("here_latency_mean_encoder")(archs)[0] == 5.5
    assert np.isnan(table.score("here_latency_mean_encoder")(archs)[1])
    chosen = table.space.to_json(archs[1])["choices"]
    assert chosen["decoder ffn of 1"] == "1024"
    assert "decoder ffn of 4" not in chosen
    refused(lambda: table.score("latency_mean_encoder"), "here_latency_mean_encoder", "did you mean")


def test_averages_are_those_that_layers_can_have() -> None:
    assert averages(1, (2, 4, 8)) == [2, 4, 8]
    assert averages(2, (2, 4, 8)) == [2, 3, 4, 5, 6, 8]


@pytest.mark.parametrize(
    ("name", "rows", "words"),
    [
        ("fbnet", [{"op": "0"}], ("no column 'op_idx'", "op", "fbnet")),
        ("fbnet", [{"op_idx": "1 2"}], ("row 0", "op_idx", "22 numbers of 0, 1")),
        ("fbnet", [{"op_idx": "1 " * 22}, {"op_idx": "9 " * 22}], ("row 1", "op_idx", "9 9")),
        ("fbnet", [{"op_idx": None}], ("row 0", "None")),
        ("nas-bench-macro", [{"arch": "00000003"}], ("row 0", "arch", "8 numbers of 0, 1, 2")),
        ("ofa-mobilenetv3", [ofa(r=225)], ("row 0", "225", "column 'r'", "one of 128")),
        ("ofa-mobilenetv3", [ofa(ks="3 " * 19)], ("row 0", "20 numbers of 3, 5, 7")),
        ("hat", [{**HAT, "decoder_ffn_embed_dim_avg": 700.0}], ("row 0", "700.0", "no average of 4 layers")),
        ("hat", [{**HAT, "decoder_layer_num": 7}], ("row 0", "'7'", "one of 1, 2")),
        ("hat", [{k: v for k, v in HAT.items() if k != "set"}], ("no column 'set'",)),
        ("nas-bench-201", [{"arch_str": "|none~0|"}], ("no NAS-Bench-201 cell",)),
        ("mobilenet:tiny", [{"arch": "0"}], ("not about space 'mobilenet'", "fbnet")),
    ],
)
def test_bad_tables_are_one_line(name: str, rows: list[dict[str, Any]], words: tuple[str, ...], tmp_path: Path) -> None:
    file = parquet(tmp_path, rows)
    refused(lambda: tables.load(name, file), *words)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00,,\n\n")
    (tmp_path / "text.parquet").write_text("no table")
    pd.DataFrame({"op_idx": []}).to_csv(tmp_path / "empty.csv", index=False)
    for file, words in (
        ("missing.csv", ("missing.csv", "does not exist")),
        ("text.parquet", ("no Parquet file",)),
        ("bytes.csv", ("bytes.csv",)),
        ("empty.csv", ("no rows",)),
        (".", ("does not exist",)),
    ):
        refused(lambda file=file: tables.load("fbnet", tmp_path / file), *words)


def test_a_window_of_a_space_has_no_table(tmp_path: Path) -> None:
    window = spaces.get("fbnet").restrict({0: [8]})
    refused(lambda: tables.load(window, parquet(tmp_path, [{"op_idx": "8 " * 22}])), "not about space")


@pytest.mark.parametrize(
    ("column", "name", "factor"),
    [
        ("cifar10_valid_acc_12ep", "accuracy", 1.0),
        ("top1", "accuracy", 1.0),
        ("mem_access_bytes", "mem_access_bytes", 1.0),
        ("pi_mem_access_bytes", "mem_access_bytes", 1.0),
        ("raspi4_ms", "latency_ms", 1.0),
        ("x_latency_mean_decoder", "latency_ms", 1.0),
        ("hwnb_edgegpu_energy_mj", "energy_mj", 1.0),
        ("cifar10_mflops", "macs", 1e6),
        ("macs", "macs", 1.0),
        ("params_cifar10", "params", 1.0),
    ],
)
def test_a_column_s_name_says_what_it_is(column: str, name: str, factor: float) -> None:
    metric, by = metric_of(column)
    assert (metric.name, by) == (name, factor)


def test_columns_that_say_nothing_are_refused() -> None:
    for column in ("std", "arch_index", "colour", "r"):
        refused(lambda column=column: metric_of(column), column, "does not say what it measures")


def test_numbers_come_in_the_metric_s_unit() -> None:
    space = spaces.get("nas-bench-macro")
    table = Table(space, [(0,) * 8], {"mflops": np.array([2.5])})
    assert table.score("mflops")([(0,) * 8]).tolist() == [2.5e6]
    assert table.score("mflops").at("3MMACs").limit == 3e6


def test_rows_about_one_architecture_are_their_mean_without_what_is_missing() -> None:
    archs = [(0,) * 8, (1,) * 8, (0,) * 8, (1,) * 8]
    table = Table(spaces.get("nas-bench-macro"), archs, {"a_ms": np.array([1.0, np.nan, 3.0, np.nan])})
    assert (len(table.row), table.repeated) == (2, 2)
    np.testing.assert_array_equal(table.columns["a_ms"], [2.0, np.nan])


@needs_data
@pytest.mark.parametrize(
    ("name", "file", "rows", "repeated"),
    [
        ("nas-bench-201", "nas_bench_201.parquet", 15_625, 0),
        ("nas-bench-macro", "nas_bench_macro_cifar10.csv.gz", 6_561, 0),
        ("fbnet", "fbnet_latency.parquet", 5_000, 0),
        ("ofa-mobilenetv3", "ofa_mobilenetv3_latency.parquet", 5_000, 0),
        ("ofa-mobilenetv3", "ofa_mobilenetv3_imagenet_top1.csv", 1_472, 28),
        ("hat", "hat_transformer_latency.parquet", 5_990, 10),
    ],
)
def test_the_public_tables_are_read_whole(name: str, file: str, rows: int, repeated: int) -> None:
    table = tables.load(name, f"{SARTOR_DATA}/{file}")
    assert (len(table.row), table.repeated) == (rows, repeated)
    archs = list(table.row)
    index = np.array(archs)
    assert (index < [len(slot) for slot in table.space.slots]).all()
    assert not index[~table.space.exists(index)].any()
    assert all(table.space.canonical(arch) == arch for arch in archs[::50])
