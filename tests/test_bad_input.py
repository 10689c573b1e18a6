"""Every user error is one line: what was given, what is allowed, what to do next; nothing half-written is left."""

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from sartor import cli, spaces, targets
from sartor.core import metric
from sartor.predictors.ridge import Ridge
from sartor.runs import Run, write_json
from tests.fakes import additive

TINY = "mobilenet:tiny"
MACRO = "bench nas-bench-macro --accuracy a_acc --table"
BENCH = f"{MACRO} P/macro.parquet --method random"
ROWS = "bench predictors --cost b_ms --table P/macro.parquet --space nas-bench-macro --train"
SEARCH = f"search lightnas --space {TINY} --predictor P/tiny.safetensors --budget"
ORT = "onnxruntime:cpu"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of things that are wrong in one way each."""
    place = tmp_path_factory.mktemp("place")
    space = spaces.get(TINY)
    arch = (0, 1, 2, 3, 4, 5, 6, 0, 1)
    good = space.to_json(arch)

    def fitted(of: Any, name: str, target_id: str, metric_name: str = "latency_ms") -> None:
        archs = of.sample(np.random.default_rng(0), 60)
        values = additive(of, 1, 0.01, 0.1)(archs)
        Ridge().fit(of, archs, values, metric=metric(metric_name), target_id=target_id).save(place / name)

    here = targets.get(ORT).id
    fitted(space, "tiny.safetensors", here)
    fitted(space, "energy.safetensors", here, "energy_mj")
    fitted(spaces.get(f"{TINY}?se=true"), "other_space.safetensors", here)
    fitted(space, "other_target.safetensors", "a toaster")
    whole = (place / "tiny.safetensors").read_bytes()
    (place / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with safe_open(place / "tiny.safetensors", framework="np") as file:
        header = json.loads(file.metadata()["sartor"])
        save_file({"nothing": np.zeros(1)}, place / "hollow.safetensors", {"sartor": json.dumps(header)})
        save_file({"nothing": np.zeros(1)}, place / "odd.safetensors", {"sartor": "[1]"})
        header["hyper"] = {"depth": 3}
        save_file({"nothing": np.zeros(1)}, place / "hyper.safetensors", {"sartor": json.dumps(header)})
    (place / "text.safetensors").write_text("I am no predictor")

    write_json(place / "good.json", good)
    for name, change in {
        "short": {"architecture": [0, 1]},
        "range": {"architecture": [9] * 9},
        "floats": {"architecture": [0.5] * 9},
        "words": {"architecture": "0 1 2"},
        "schema": {"schema": 99},
        "unknown_space": {"space": {"space": "mobilnet"}},
        "broken_space": {"space": {"space": "mobilenet", "base": {"space": "mobilenet"}}},
        "no_space": {"space": None},
    }.items():
        write_json(place / f"{name}.json", {**good, **change})
    write_json(place / "list.json", [1, 2])
    (place / "cut.json").write_text('{"schema": 1, "arch')
    (place / "bytes.json").write_bytes(b"\xff\xfe\x00")

    (place / "bad.yaml").write_text("epochs: [1")
    (place / "list.yaml").write_text("- epochs\n")
    (place / "typo.yaml").write_text("epohcs: 3\n")
    (place / "number_key.yaml").write_text("3: 4\n")

    with Run(place / "other", {"verb": "search", "size": 1}):
        pass
    for name, text in {"damaged": "{", "old": '{"schema": 0}', "half": '{"schema": 1}'}.items():
        (place / name).mkdir()
        (place / name / "run.json").write_text(text)
    (place / "foreign").mkdir()
    (place / "foreign" / "thesis.txt").write_text("mine")
    (place / "file").write_text("a file")
    with Run(place / "untrained", {"verb": "search"}):
        write_json(place / "untrained" / "architecture.json", good)
    with Run(place / "elsewhere", {"verb": "search"}):
        write_json(place / "elsewhere" / "architecture.json", good)
        limit = {"metric": "latency_ms", "limit": 1.0, "unit": "ms", "sense": "at_most"}
        write_json(place / "elsewhere" / "result.json", {"budgets": [limit], "target": "a toaster"})
    with Run(place / "misfit", {"verb": "train"}):
        write_json(place / "misfit" / "architecture.json", good)
        (place / "misfit" / "network.safetensors").write_bytes(whole)

    def image(path: str, size: tuple[int, int] = (8, 8), mode: str = "L") -> None:
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, size).save(place / path)

    (place / "empty").mkdir()
    for name in ("a", "b"):
        for i in range(6):
            image(f"images/{name}/{i}.png")
            image(f"corrupt/{name}/{i}.png")
            image(f"hollow/{name}/{i}.png")
            image(f"one/only/{name}{i}.png")
            image(f"untested/train/{name}/{i}.png")
    (place / "corrupt" / "b" / "3.png").write_bytes(b"not a picture")
    (place / "hollow" / "c").mkdir()

    def png(mode: str = "L") -> bytes:
        image("x.png", mode=mode)
        return (place / "x.png").read_bytes()

    def table(name: str, **columns: Any) -> None:
        pd.DataFrame(columns).to_parquet(place / f"{name}.parquet")

    labels = [i % 3 for i in range(30)]
    table("no_label", png=[png()] * 30)
    table("no_image", label=labels)
    table("nan_label", png=[png()] * 30, label=[float("nan"), *labels[1:]])
    table("negative", png=[png()] * 30, label=[-1, *labels[1:]])
    table("same", png=[png()] * 30, label=[0] * 30)
    table("mixed", png=[png("RGB"), *[png()] * 29], label=labels)
    table("nothing", png=list[bytes](), label=list[int]())
    table("torn", png=[b"junk"] * 30, label=labels)
    (place / "text.parquet").write_text("no table")
    table("macro", arch=[f"0000000{i}" for i in range(3)], a_acc=[1.0, 2.0, 3.0], b_ms=[1.0, 2.0, 3.0], c=[1, 2, 3])
    table("no_macro", arch=["0000000x"], a_acc=[1.0])

    (place / "text.db").write_text("this is no database, but long enough to look like a damaged one" * 20)
    with sqlite3.connect(place / "later.db") as later:
        later.execute("create table sartor (id integer primary key, schema integer)")
        later.execute("insert into sartor values (1, 99)")
    return place


# words of the command line (P is the directory above, RUN a new run directory), exit code, what the line must say
CASES = [
    # verbs, methods, options
    ("serach lightnas", 2, "unknown verb 'serach' search"),
    (f"search lightnas --space {TINY} --objective latency_ms --budget 1ms", 2, "front spos weighs surgenas"),
    (f"search spos --space {TINY} --from old --budget 1ms", 2, "--from supernet-shifting"),
    (
        f"search supernet-shifting --space {TINY} --from nowhere --budget 1GMACs --data digits",
        2,
        "nowhere no supernet spos",
    ),
    (f"search spos --space {TINY} --predictor measured --budget 1ms", 2, "measured limits 1ms auto"),
    (f"search spos --space {TINY} --predictor measured --budget 1MMACs", 2, "measured objective"),
    (f"search lightnas --space {TINY} --predictor measured --budget 1ms", 2, "measured front"),
    ("bench order nowhere --epochs 1", 2, "nowhere"),
    (f"search supernet-shifting --space {TINY} --budget 1GMACs --set warmup=5", 2, "warmup=5 --from"),
    (f"search spos --space {TINY} --budget 1GMACs --set keep=60", 2, "keep=60 population=60"),
    ("search lightnass --space x", 2, "unknown method 'lightnass' lightnas"),
    ("search lightnas --budget 1ms", 2, "--space"),
    (f"search lightnas --space {TINY}", 2, "--budget"),
    (f"search surgenas --space {TINY}", 2, "--budget"),
    (f"search lightnas --space {TINY} --objective macs", 2, "--objective macs surgenas lightnas"),
    (f"search surgenas --space {TINY} --objective macs --budget 1ms", 2, "--objective macs 1 budgets"),
    (f"search surgenas --space {TINY} --objective speed", 2, "metric 'speed'"),
    (f"search surgenas --space {TINY} --objective macs", 2, "beta"),
    (f"search surgenas --space {TINY} --budget 1MMACs --set beta=1", 2, "beta=1 budget"),
    (f"measure --space {TINY} --sample 12", 2, "--sample"),
    (f"measure --space {TINY} --samples", 2, "--samples"),
    (f"measure --space {TINY} --samples many", 2, "--samples whole|integer"),
    (f"measure --space {TINY} --samples 3", 2, "--samples 10"),
    (f"measure --space {TINY} --seed -1", 2, "--seed 0"),
    ("measure", 2, "--space"),
    ("spaces mobilenet:tiny surplus", 2, "surplus"),
    # spaces
    ("spaces mobilnet", 2, "unknown space 'mobilnet' mobilenet"),
    ("spaces mobilenet:tinny", 2, "preset 'tinny' tiny"),
    ("spaces mobilenet:tiny?preset=cifar", 2, "two presets"),
    (f"spaces {TINY}?depth=3", 2, "'depth' layers"),
    (f"spaces {TINY}?resolution", 2, "key=value"),
    (f"spaces {TINY}?resolution=4", 2, "resolution=4 8 to 1024"),
    (f"spaces {TINY}?resolution=8.5", 2, "resolution=8.5 whole"),
    (f"spaces {TINY}?width=abc", 2, "width='abc' 0.05"),
    (f"spaces {TINY}?width=nan", 2, "width=nan 0.05"),
    (f"spaces {TINY}?width=-1", 2, "width=-1 0.05"),
    (f"spaces {TINY}?classes=1", 2, "classes=1 2"),
    (f"spaces {TINY}?layers=2", 2, "layers=2 3 to 200"),
    (f"spaces {TINY}?layers=many", 2, "layers='many'"),
    (f"spaces {TINY}?se=maybe", 2, "se='maybe' true"),
    (f"spaces {TINY}?dropout=1", 2, "dropout=1 0.95"),
    ("spaces uniform?widths=2", 2, "widths=2 list"),
    ("spaces P/none.json", 2, "no file none.json"),
    ("targets --space mobilenet:tiny", 2, "--group add"),
    ("targets --group", 2, "--group --space --target --table"),
    (f"targets --group --space {TINY}", 2, "--target --table"),
    (f"targets --group --space {TINY} --target {ORT} --table P/macro.parquet", 2, "--target --table"),
    (f"targets --group --space {TINY} --target {ORT} --cost a_ms", 2, "--cost --table"),
    (f"targets --group --space {TINY} --target toaster:cpu --target {ORT}", 2, "unknown target 'toaster' onnxruntime"),
    ("targets --group --space nas-bench-macro --table P/macro.parquet --cost x_ms", 2, "unknown column 'x_ms' b_ms"),
    ("targets --group --space nas-bench-macro --table P/macro.parquet", 2, "devices measure"),
    (f"search surgenas --space {TINY} --target {ORT} --target {ORT} --budget 1ms", 2, "same once"),
    (f"search surgenas --space {TINY} --target {ORT} --target torch:cpu", 2, f"needs --budget {ORT}:20ms"),
    (f"search surgenas --space {TINY} --target {ORT} --target torch:cpu --budget 20", 2, "20 no unit"),
    (f"search surgenas --space {TINY} --target {ORT} --target torch:cpu --budget x:20ms", 2, "x:20ms among"),
    (f"search surgenas --space {TINY} --target {ORT} --target torch:cpu --objective macs", 2, "--objective one target"),
    ("refine P/none", 2, "none"),
    ("refine P/good.json", 2, "--budget 20ms"),
    ("refine P/good.json --budget 20", 2, "20 no unit"),
    ("refine P/elsewhere", 2, "toaster --target --budget"),
    ("refine P/good.json --budget 1MMACs --mode inner", 2, "'inner' hidden"),
    ("refine P/good.json --budget 1MMACs --set kep=3", 2, "kep keep"),
    ("refine P/good.json --budget 1MMACs --recipe epoch=3", 2, "epoch epochs"),
    ("compress torchvision:resnet19 --budget 60%", 2, "'resnet19' resnet18"),
    ("compress torchvision:resnet18 --budget 60%", 2, "resnet18 images of 1 x 8 x 8"),
    ("compress torchvision:resnet18", 2, "--budget"),
    ("compress torchvision:resnet18 --budget 160%", 2, "'160%' less than 100%"),
    ("compress torchvision:resnet18 --budget 20", 2, "20 no unit"),
    ("compress torchvision:resnet18 --budget 60% --set epoch=3", 2, "'epoch' epochs"),
    ("compress torchvision:resnet18 --budget 60% --recipe epoch=3", 2, "epoch epochs"),
    ("compress torchvision:resnet18 --budget 60% --candidates keep,cut", 2, "'cut' graft"),
    ("compress P/none.py:network --budget 60%", 2, "none.py"),
    ("train P/good.json --tuned", 2, "no weights from scratch"),
    ("scale P/none", 2, "none"),
    ("scale P/good.json --target toaster:cpu", 2, "unknown target 'toaster'"),
    ("scale P/good.json --step 0", 2, "step=0 above"),
    ("scale P/good.json --most 1", 2, "most=1 above"),
    ("scale P/good.json --most 1.05", 2, "--most"),
    ("spaces P/cut.json", 2, "cut.json damaged"),
    ("spaces P/list.json", 2, "'space'"),
    ("spaces P/broken_space.json", 2, "damaged"),
    ("measure --space P/unknown_space.json", 2, "'mobilnet' mobilenet"),
    # targets
    (f"measure --space {TINY} --target tensorrt:cpu", 2, "unknown target 'tensorrt' onnxruntime"),
    (f"measure --space {TINY} --target onnxruntime", 2, "device onnxruntime:cpu"),
    (f"measure --space {TINY} --target onnxruntime:cuda", 2, "device 'cuda' cpu"),
    (f"measure --space {TINY} --target torch:tpu", 2, "'tpu' cpu"),
    (f"measure --space {TINY} --target {ORT}?threads=0", 2, "threads=0"),
    (f"measure --space {TINY} --target {ORT}?threads=1.5", 2, "threads=1.5"),
    (f"measure --space {TINY} --target {ORT}?threads=9999", 2, "threads=9999 cores"),
    (f"measure --space {TINY} --target {ORT}?batch=0", 2, "batch=0"),
    (f"measure --space {TINY} --target {ORT}?precision=fp8", 2, "'fp8' fp32"),
    (f"measure --space {TINY} --target {ORT}?threats=1", 2, "'threats' threads"),
    (f"measure --space {TINY} --samples 10 --metric latency", 2, "'latency' latency_ms"),
    (f"measure --space {TINY} --samples 10 --metric accuracy", 2, "'accuracy' latency_ms"),
    (f"fit --space {TINY} --metric speed", 2, "unknown metric 'speed' latency_ms"),
    # limits
    (f"{SEARCH} 5", 2, "'5' no unit 5ms"),
    (f"{SEARCH} ms", 2, "'ms' 20ms"),
    (f"{SEARCH} 0ms", 2, "'0ms' positive"),
    (f"{SEARCH} nanms", 2, "'nanms' 20ms"),
    (f"{SEARCH} 1e999ms", 2, "'1e999ms' finite"),
    (f"{SEARCH} 5parsecs", 2, "unit 'parsecs' ms"),
    (f"{SEARCH}=-3ms", 2, "'-3ms' positive"),
    (f"{SEARCH} 5ms --budget 6ms", 2, "2 budgets latency_ms"),
    (f"{SEARCH} 5ms --budget 6ns", 2, "2 budgets latency_ms"),
    (f"fit --space {TINY} --near 5", 2, "no unit"),
    (f"fit --space {TINY} --near 5mJ", 2, "energy_mj latency_ms"),
    # budgets that nothing stands behind, or that nothing reaches
    (f"search lightnas --space {TINY} --samples 12 --budget 1mJ", 2, "energy_mj counter|RAPL|energy"),
    (f"{SEARCH} 5GB", 2, "peak_memory_mb latency_ms"),
    (f"search lightnas --space {TINY} --budget 5mJ --predictor P/tiny.safetensors", 2, "energy_mj latency_ms"),
    (f"{SEARCH} 1us", 3, "reaches ms raise"),
    (f"{SEARCH} 1s", 3, "reaches ms"),
    (f"{SEARCH} 1s --two-sided", 3, "reaches ms lower"),
    (f"search lightnas --space {TINY} --budget 1MACs", 3, "reaches MMACs raise"),
    (f"search lightnas --space {TINY} --budget 1params --two-sided", 3, "reaches parameters raise"),
    # predictors
    (f"search lightnas --space {TINY} --budget 1ms --predictor forest", 2, "'forest' ridge fit"),
    (f"search lightnas --space {TINY} --budget 1ms --predictor P/none.safetensors", 2, "none.safetensors ridge fit"),
    (f"search lightnas --space {TINY} --budget 1ms --predictor P/empty", 2, "no predictor fit"),
    (f"search lightnas --space {TINY} --budget 1ms --predictor P/cut.safetensors", 2, "damaged fit"),
    (f"search lightnas --space {TINY} --budget 1ms --predictor P/text.safetensors", 2, "damaged fit"),
    (f"search lightnas --space {TINY} --budget 1ms --predictor P/odd.safetensors", 2, "damaged fit"),
    (f"search lightnas --space {TINY} --budget 1ms --predictor P/hollow.safetensors", 2, "damaged fit"),
    (f"search lightnas --space {TINY} --budget 1ms --predictor P/hyper.safetensors", 2, "'depth' strength"),
    (f"search lightnas --space {TINY} --budget 1ms --predictor P/other_space.safetensors", 2, "fitted on space"),
    (f"search lightnas --space {TINY} --budget 1ms --predictor P/other_target.safetensors", 2, "'a toaster'"),
    (f"fit --space {TINY} --samples 12 --predictor forest", 2, "'forest' ridge"),
    # settings
    (f"{SEARCH} 1ms --set epochs", 2, "'epochs' key=value"),
    (f"{SEARCH} 1ms --set =3", 2, "'=3' key=value"),
    (f"{SEARCH} 1ms --set epohcs=3", 2, "'epohcs' epochs"),
    (f"{SEARCH} 1ms --set epochs=three", 2, "epochs='three'"),
    (f"{SEARCH} 1ms --set epochs=-3", 2, "epochs=-3"),
    (f"{SEARCH} 1ms --set epochs=2", 2, "epochs=2 warmup_epochs=10"),
    (f"{SEARCH} 1ms --set lr=inf", 2, "lr=inf"),
    (f"{SEARCH} 1ms --set lr=nan", 2, "lr=nan"),
    (f"{SEARCH} 1ms --set controller=magic", 2, "controller='magic' settling"),
    (f"{SEARCH} 1ms --config P/none.yaml", 2, "no file none.yaml --config"),
    (f"{SEARCH} 1ms --config P/bad.yaml", 2, "bad.yaml YAML"),
    (f"{SEARCH} 1ms --config P/list.yaml", 2, "list.yaml key: value"),
    (f"{SEARCH} 1ms --config P/typo.yaml", 2, "'epohcs' epochs"),
    (f"{SEARCH} 1ms --config P/number_key.yaml", 2, "3 epochs"),
    (f"{SEARCH} 1ms --config P/empty", 2, "empty YAML"),
    ("train P/good.json --set epohcs=3", 2, "'epohcs' epochs"),
    ("train P/good.json --set epochs=0", 2, "epochs=0"),
    ("train P/good.json --set epochs=2 --set warmup_epochs=3", 2, "warmup_epochs=3 epochs=2"),
    ("train P/good.json --devices 0", 2, "devices=0 1"),
    ("train P/good.json --devices two", 2, "--devices integer"),
    ("train P/good.json --devices 65 --set batch_size=64", 2, "devices=65 batch of 64 devices=64"),
    # data
    (f"{SEARCH} 1ms --data digit", 2, "data set 'digit' digits"),
    (f"{SEARCH} 1ms --data digits:P", 2, "'digits' no path"),
    (f"{SEARCH} 1ms --data digits?size=9", 2, "'size'"),
    (f"{SEARCH} 1ms --data cifar10", 2, "path cifar10:PATH"),
    (f"{SEARCH} 1ms --data P/none", 2, "no data P/none"),
    (f"{SEARCH} 1ms --data imagefolder:P/none", 2, "no folder none"),
    (f"{SEARCH} 1ms --data imagefolder:P/empty", 2, "0 class folders two"),
    (f"{SEARCH} 1ms --data imagefolder:P/one", 2, "1 class folders two"),
    (f"{SEARCH} 1ms --data imagefolder:P/hollow?resolution=8", 2, "hollow/c no images"),
    (f"{SEARCH} 1ms --data imagefolder:P/corrupt?resolution=8", 2, "corrupt/b/3.png readable"),
    (f"{SEARCH} 1ms --data imagefolder:P/untested?resolution=8", 2, "test/"),
    (f"{SEARCH} 1ms --data imagefolder:P/images?classes=5", 2, "2 classes, 5"),
    (f"{SEARCH} 1ms --data imagefolder:P/images?resolution=0", 2, "resolution=0"),
    (f"{SEARCH} 1ms --data imagefolder:P/images?resolution=8", 2, "channels 1 (data: 3) classes=2"),
    (f"{SEARCH} 1ms --data parquet:P/none.parquet", 2, "none.parquet"),
    (f"{SEARCH} 1ms --data parquet:P/text.parquet", 2, "text.parquet"),
    (f"{SEARCH} 1ms --data parquet:P/no_label.parquet?test=P/no_label.parquet", 2, "column label"),
    (f"{SEARCH} 1ms --data parquet:P/no_image.parquet?test=P/no_image.parquet", 2, "jpeg png image"),
    (f"{SEARCH} 1ms --data parquet:P/nan_label.parquet?test=P/nan_label.parquet", 2, "label whole|integer|NaN|nan"),
    (f"{SEARCH} 1ms --data parquet:P/negative.parquet?test=P/negative.parquet", 2, "label -1 range"),
    (f"{SEARCH} 1ms --data parquet:P/same.parquet?test=P/same.parquet", 2, "one class"),
    (f"{SEARCH} 1ms --data parquet:P/mixed.parquet?test=P/mixed.parquet", 2, "channels"),
    (f"{SEARCH} 1ms --data parquet:P/nothing.parquet?test=P/nothing.parquet", 2, "nothing no|empty"),
    (f"{SEARCH} 1ms --data parquet:P/torn.parquet", 2, "test part"),
    (f"{SEARCH} 1ms --data parquet:P/torn.parquet?test=P/torn.parquet", 2, "readable"),
    (f"search lightnas --space {TINY}?classes=7 --budget 9MMACs", 2, "classes 7 (data: 10) ?classes=10"),
    ("train P/good.json --data imagefolder:P/images?resolution=8", 2, "channels 1 (data: 3)"),
    (f"{SEARCH} 1ms --device tpu9", 2, "'tpu9'|tpu9 cpu"),
    # architectures and networks
    ("train P/none.json", 2, "no file none.json"),
    ("train P/cut.json", 2, "cut.json damaged"),
    ("train P/bytes.json", 2, "bytes.json damaged"),
    ("train P/list.json", 2, "list.json architecture file"),
    ("train P/short.json", 2, "2 entries 9 slots"),
    ("train P/range.json", 2, "entry 0 9 0 to 6"),
    ("train P/floats.json", 2, "entry 0 0.5"),
    ("train P/words.json", 2, "list"),
    ("train P/schema.json", 2, "schema 99"),
    ("train P/no_space.json", 2, "space"),
    ("train P/unknown_space.json", 2, "'mobilnet' mobilenet"),
    ("train P/empty", 2, "architecture.json"),
    ("train P/file", 2, "file not JSON|damaged"),
    (f"measure P/good.json --space {TINY}", 2, "either --space"),
    ("measure P/good.json P/none.json", 2, "no file none.json"),
    ("measure P/short.json", 2, "2 entries 9 slots"),
    ("measure P/empty", 2, "architecture.json"),
    ("export P/none", 2, "none"),
    ("export P/untrained", 2, "no trained weights train"),
    ("export P/misfit", 2, "network.safetensors fit"),
    ("export P/untrained --format tflite", 2, "'tflite' onnx"),
    ("report P/none", 2, "none exist"),
    ("report P/empty", 2, "no run"),
    ("report P/file", 2, "file"),
    ("report P/damaged", 2, "run.json damaged"),
    ("report P/old", 2, "schema"),
    ("report P/untrained --out P/file/page.html", 2, "cannot write"),
    ("report P/untrained --out P/empty", 2, "cannot write --out"),
    # run directories (the last --run wins)
    (f"{SEARCH} 1ms --run P/other", 2, "another job --run"),
    (f"{SEARCH} 1ms --run P/damaged", 2, "run.json damaged"),
    (f"{SEARCH} 1ms --run P/old", 2, "schema 1"),
    (f"{SEARCH} 1ms --run P/half", 2, "run.json"),
    (f"{SEARCH} 1ms --run P/foreign", 2, "no run empty"),
    (f"{SEARCH} 1ms --run P/file", 2, "is a file directory"),
    (f"{SEARCH} 1ms --run P/file/below", 2, "file/below directory"),
    # measurements
    (f"measure --space {TINY} --samples 10 --store P/text.db", 2, "text.db SQLAlchemy URL"),
    (f"measure --space {TINY} --samples 10 --store P/later.db", 2, "schema 99"),
    (f"measure --space {TINY} --samples 10 --store P/empty", 2, "empty file"),
    (f"measure --space {TINY} --samples 10 --store P/file/below.db", 2, "below.db"),
    (f"measure --space {TINY} --samples 10 --store nosuchdb://host/x", 2, "nosuchdb"),
    # tables
    ("bench nas-bench-202 --table P/macro.parquet", 2, "unknown benchmark 'nas-bench-202' predictors"),
    (f"{MACRO} P/macro.parquet", 2, "--method"),
    (f"{MACRO} P/macro.parquet --method lightnas", 2, "lightnas supernet random sartor search lightnas --space"),
    (f"{MACRO} P/macro.parquet --method randm", 2, "unknown method 'randm' 'random'"),
    (f"{MACRO} P/none.parquet --method random", 2, "P/none.parquet does not exist"),
    (f"{MACRO} P/text.parquet --method random", 2, "P/text.parquet no Parquet .csv"),
    (f"{MACRO} P/same.parquet --method random", 2, "P/same.parquet no column 'arch' png label"),
    (f"{MACRO} P/no_macro.parquet --method random", 2, "row 0 0 x 'arch' 8 0, 1, 2"),
    (f"{BENCH} --accuracy d_acc", 2, "unknown column 'd_acc' a_acc"),
    (f"{BENCH} --accuracy b_ms", 2, "b_ms latency_ms accuracies"),
    (f"{BENCH} --test c", 2, "'c' does not say what it measures accuracy"),
    (f"{BENCH} --cost b_ms", 2, "b_ms give both"),
    (f"{BENCH} --budget 1ms", 2, "1ms give both"),
    (f"{BENCH} --cost b_ms --budget 1", 2, "no unit 1ms"),
    (f"{BENCH} --cost b_ms --budget 1mJ", 2, "energy_mj latency_ms ms"),
    (f"{BENCH} --cost b_ms --budget 0.5ms", 3, "0.5ms b_ms 1 ms 3 ms"),
    (f"{BENCH} --cost b_ms --budget 2ms --cost-rows 4", 2, "4 3 rows fewer"),
    (f"{BENCH} --cost-rows 2", 2, "cost rows cost column"),
    (f"{BENCH} --queries 0", 2, "--queries"),
    (f"{BENCH} --seeds 0", 2, "--seeds"),
    (f"{ROWS} 2,x", 2, "--train '2,x' 10,50,100,900"),
    (f"{ROWS} 1", 2, "--train '1' 2"),
    (f"{ROWS} 5", 2, "3 measured 5 less"),
    (f"{ROWS} 2 --seeds 1", 2, "--seeds"),
    (f"{ROWS} 2 --cost b", 2, "unknown column 'b' b_ms"),
    (f"{ROWS} 2 --space fbnet", 2, "no column 'op_idx' fbnet arch"),
    (f"{ROWS} 2 --space {TINY}", 2, "fbnet not about 'mobilenet'"),
]


def tree(place: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(place)): p.read_bytes()
        for p in place.rglob("*")
        if p.is_file() and p.name != "lock" and not p.name.endswith((".db.lock", "-wal", "-shm"))
    }


@pytest.fixture
def quiet_place(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SARTOR_STORE", str(tmp_path / "store.db"))
    return place


def call(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["sartor", *words])
    with pytest.raises(SystemExit) as done:
        cli.main()
    assert isinstance(done.value.code, int)
    return done.value.code


@pytest.mark.parametrize(("line", "code", "says"), CASES, ids=[case[0] for case in CASES])
def test_bad_input_is_one_line(
    line: str,
    code: int,
    says: str,
    quiet_place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [word.replace("P/", f"{quiet_place}/") for word in line.split()]
    run = tmp_path / "run"
    if words[0] in ("measure", "fit", "train", "export", "scale", "refine") or words[:2] == ["search", "lightnas"]:
        words[1:1] = [] if words[0] == "search" else ["--run", str(run)]
        words[2:2] = ["--run", str(run)] if words[0] == "search" else []
    before = tree(quiet_place)
    assert call(words, monkeypatch) == code
    out, err = capsys.readouterr()
    lines = err.strip().splitlines()
    assert out == ""
    assert lines[-1].startswith("sartor: ")
    assert sum(text.startswith("sartor: ") for text in lines) == 1
    assert "Traceback" not in err
    message = lines[-1].replace(f"{quiet_place}/", "P/")
    for word in says.split():
        assert any(choice in message for choice in word.split("|")), f"{word!r} is not in: {message}"
    assert len(message) > 30, "what was given, what is allowed, what to do next"
    assert tree(quiet_place) == before
    assert not run.exists(), "a corrected command can have the directory"
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an accelerator here")
@pytest.mark.parametrize("line", [f"measure --space {TINY} --target torch:cuda", f"{SEARCH} 1ms --device cuda"])
def test_an_accelerator_that_is_not_there_is_one_line(
    line: str, quiet_place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([word.replace("P/", f"{quiet_place}/") for word in line.split()], monkeypatch) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("sartor: ")
    assert "cuda" in last
    assert "cpu" in last


def test_a_live_run_is_not_entered(
    quiet_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"measure --space {TINY} --samples 10 --run {tmp_path / 'busy'}".split()
    with Run(tmp_path / "busy", {"verb": "measure"}):
        before = tree(tmp_path)
        assert call(words, monkeypatch) == 2
        assert "in use by process" in capsys.readouterr().err
        assert tree(tmp_path) == before


def test_a_corrected_command_can_have_the_directory(
    quiet_place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start = f"search lightnas --space {TINY} --run {tmp_path / 'run'} --set epochs=0 --store {tmp_path / 's.db'} --json"
    assert call([*start.split(), "--budget", "1MACs"], monkeypatch) == 3
    assert call([*start.split(), "--budget", "1Macs"], monkeypatch) == 2
    capsys.readouterr()
    assert call([*start.split(), "--budget", "2MMACs"], monkeypatch) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["feasible"] is True
    assert found["predicted"]["macs"] == pytest.approx(2e6, rel=0.01)


def test_help_is_shown_where_nothing_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, named in (([], "measure"), (["search"], "lightnas")):
        assert call(words, monkeypatch) == 2
        err = capsys.readouterr().err
        assert "Usage: sartor" in err
        assert named in err
        assert len(err.splitlines()) > 5
