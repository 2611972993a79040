#!/usr/bin/env python3
"""Makes examples of the report page from invented data.

usage: make_example.py [DIR]      default: the folder of this script

Writes example.html (8 methods, 5 seeds, 50 tasks, two protocols, a diverged and an unfinished run), long.html (2,000
tasks, revisits, thinned diagnosis), tiny.html (one method, one seed, one task, nothing optional), odd.html (gaps,
missing parts, bad numbers) and empty.html, each beside its data as .json. Needs nothing but Python's standard library
and d3's file (version 5: Debian's node-d3).
"""

import base64
import json
import math
import pathlib
import random
import struct
import sys
import zlib

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "apps/report"
D3 = ["/usr/share/nodejs/d3/dist/d3.min.js"]
MODULES = ["q", "k", "v", "out", "fc1", "fc2"]
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}

# name: accuracy at the start, loss of it over the stream, speed of learning, images a second, settings
METHODS = {
    "adamw": (0.690, 0.150, 1.0, 5210, "adamw: lr 0.001, betas 0.9 0.999, weight decay 0.05"),
    "sgd": (0.640, 0.045, 0.6, 5480, "sgd: lr 0.05, momentum 0.9, weight decay 0.0005"),
    "arrow": (0.685, 0.020, 0.9, 4630, "arrow: lr 0.05, window 16, kappa 3, power 0.25"),
    "arrow+nap": (0.683, 0.005, 0.9, 4490, "arrow: lr 0.05, window 16, kappa 3; nap"),
    "sgd+cbp": (0.645, 0.012, 0.65, 5120, "sgd: lr 0.05; cbp: replacement rate 1e-4, maturity 100"),
    "l2init": (0.672, 0.055, 0.9, 5150, "adamw: lr 0.001; l2init: strength 0.01"),
    "trac": (0.676, 0.085, 0.9, 4870, "trac around adamw: lr 0.001"),
    "fresh": (0.662, 0.000, 0.8, 5200, "adamw: lr 0.001; a new network for each task"),
}


def t_interval(values):
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return {"mean": mean, "n": n}
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    half = STUDENT.get(n - 1, 2.2) * deviation / math.sqrt(n)
    return {"mean": mean, "deviation": deviation, "low": mean - half, "high": mean + half, "n": n}


def slope(values):
    n = len(values)
    if n < 2:
        return 0.0
    mx, my = (n - 1) / 2, sum(values) / n
    return sum((i - mx) * (v - my) for i, v in enumerate(values)) / sum((i - mx) ** 2 for i in range(n))


def p_value(values):
    """Two-sided and rough (normal with the wider tails of few values): good enough for invented data."""
    s = t_interval(values)
    t = abs(s["mean"]) / (s["deviation"] / math.sqrt(s["n"]) + 1e-12)
    return math.erfc(t / math.sqrt(2) / (1 + 0.9 / s["n"]))


def thin(tasks, most):
    step = max(1, math.ceil(tasks / most))
    chosen = list(range(1, tasks + 1, step))
    return chosen if chosen[-1] == tasks else chosen + [tasks]


def rounded(value, digits=4):
    if isinstance(value, list):
        return [rounded(v, digits) for v in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def diagnosis(rng, loss, tasks, blocks, heads, dim, total):
    """Ranks fall and norms grow with the loss of plasticity; deeper blocks first."""
    worn = lambda task, b: loss * 5 * (1 - math.exp(-2.5 * task / total)) * (0.5 + (b + 1) / blocks)
    noise = lambda s: math.exp(rng.gauss(0, s))
    out = {
        "tokens.effective_rank": [],
        "units.active": [],
        "units.dead": [],
        "attention.entropy": [],
        "attention.sink.share": [],
    }
    for m in MODULES:
        for what in ("norm", "drift", "from_start", "update_ratio", "effective_rank"):
            out[f"weight.{m}.{what}"] = []
        for what in ("norm", "cosine", "effective_rank", "top_share"):
            out[f"gradient.{m}.{what}"] = []
    per_head = []
    for task in tasks:
        w = [worn(task, b) for b in range(blocks)]
        out["tokens.effective_rank"].append(
            [dim * 0.55 * math.exp(-1.6 * x) * (1 - 0.05 * b) * noise(0.03) for b, x in enumerate(w)]
        )
        out["units.active"].append([max(0.02, 0.97 - 0.55 * x) * min(1.0, noise(0.01)) for x in w])
        out["units.dead"].append([min(1, 0.01 + 0.3 * x * noise(0.1)) for x in w])
        out["attention.sink.share"].append([min(1, 0.05 + 0.2 * x * noise(0.1)) for x in w])
        h = [
            [max(0.1, (4.1 - 0.25 * b) * math.exp(-0.4 * x * (0.5 + i / heads)) * noise(0.03)) for i in range(heads)]
            for b, x in enumerate(w)
        ]
        per_head.append(h)
        out["attention.entropy"].append([sum(row) / heads for row in h])
        for i, m in enumerate(MODULES):
            size = 6 + 1.5 * i
            out[f"weight.{m}.norm"].append([size * (1 + 1.2 * x) * noise(0.01) for x in w])
            out[f"weight.{m}.drift"].append([0.08 * (1 + i / 4) * math.exp(-1.1 * x) * noise(0.08) for x in w])
            out[f"weight.{m}.from_start"].append(
                [(0.3 + 0.1 * i) * (1 - math.exp(-6 * task / total)) * (1 + 1.5 * x) * noise(0.02) for x in w]
            )
            out[f"weight.{m}.update_ratio"].append([1e-3 * math.exp(-1.5 * x) * noise(0.1) for x in w])
            out[f"weight.{m}.effective_rank"].append([dim * 0.8 * math.exp(-0.5 * x) * noise(0.01) for x in w])
            out[f"gradient.{m}.norm"].append([0.5 * (1 + i / 3) * math.exp(-0.8 * x) * noise(0.15) for x in w])
            out[f"gradient.{m}.cosine"].append([rng.gauss(0.08 - 0.05 * x, 0.03) for x in w])
            out[f"gradient.{m}.effective_rank"].append([dim * 0.25 * math.exp(-1.1 * x) * noise(0.05) for x in w])
            out[f"gradient.{m}.top_share"].append([min(0.95, 0.18 + 0.22 * x) * min(1.05, noise(0.05)) for x in w])
    return {
        "tasks": tasks,
        "blocks": rounded(out),
        "model": {
            "features.effective_rank": rounded(
                [dim * 0.4 * math.exp(-1.5 * worn(t, blocks - 1)) * noise(0.03) for t in tasks]
            )
        },
        "heads": {"attention.entropy": rounded(per_head)},
    }


def spectra(rng, loss, tasks, blocks, dim, total):
    def values(task, b, steep):
        fall = steep + loss * 10 * (1 - math.exp(-2.5 * task / total)) * (b + 1) / blocks
        return [30 * math.exp(-fall * 0.07 * i) / (1 + i) ** 0.5 * math.exp(rng.gauss(0, 0.01)) for i in range(dim)]

    made = {
        key: [[values(t, b, steep) for b in range(blocks)] for t in tasks]
        for key, steep in (("tokens", 0.6), ("gradient.v", 1.4))
    }
    return {"tasks": tasks, "values": rounded(made, 3)}


def attention_maps(rng, loss, tasks, blocks, images, grid, total):
    def one(task, image, b):
        cx, cy = (0.3 + 0.13 * image) * grid, (0.65 - 0.09 * image) * grid
        wide = 0.9 + 0.5 * (blocks - b) / blocks * grid
        sink = loss * 4 * task / total
        cells = [
            math.exp(-((x - cx) ** 2 + (y - cy) ** 2) / wide) * (1 - min(0.9, sink)) + rng.random() * 0.05
            for y in range(grid)
            for x in range(grid)
        ]
        cells[0] += sink
        return [c / sum(cells) for c in cells]

    return {
        "tasks": tasks,
        "values": rounded([[[one(t, i, b) for b in range(blocks)] for i in range(images)] for t in tasks], 3),
    }


def png(pixels, size):
    """An RGB picture as PNG bytes; pixels[y][x] = (r, g, b)."""
    raw = b"".join(b"\0" + bytes(c for p in row for c in p) for row in pixels)
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(raw, 9))
        + chunk(b"IEND", b"")
    )


def sample(rng, image, size=32, grid=8):
    cx, cy, r = (0.3 + 0.13 * image) * size, (0.65 - 0.09 * image) * size, size * 0.22
    back, front = [rng.randrange(60, 150) for _ in range(3)], [rng.randrange(120, 255) for _ in range(3)]
    pixel = lambda x, y: tuple(
        min(255, max(0, int(c + rng.gauss(0, 9) + 20 * math.sin((x + image * y) / 5))))
        for c in (front if math.hypot(x - cx, y - cy) < r else back)
    )
    data = png([[pixel(x, y) for x in range(size)] for y in range(size)], size)
    return {"uri": "data:image/png;base64," + base64.b64encode(data).decode(), "grid": grid}


def run(rng, name, seed, tasks, difficulty, fresh, options):
    base, loss, speed, rate, _ = METHODS[name]
    base += rng.gauss(0, 0.006)
    fall = lambda t: loss * (1 - math.exp(-2.2 * t / tasks)) / (1 - math.exp(-2.2))
    accuracy = [min(0.99, max(0.15, base - fall(t) + difficulty[t] + rng.gauss(0, 0.012))) for t in range(tasks)]
    measures = {
        "task_accuracy": accuracy,
        "online_accuracy": [a * (0.74 + 0.06 * speed) + rng.gauss(0, 0.006) for a in accuracy],
        "train_accuracy": [min(1, a + 0.13 + rng.gauss(0, 0.006)) for a in accuracy],
        "area_under_curve": [a * (0.78 + 0.08 * speed) for a in accuracy],
        "train_loss": [max(0.05, 1.9 * (1 - a) + rng.gauss(0, 0.02)) for a in accuracy],
    }
    if fresh:
        measures["gap"] = [f - a for f, a in zip(fresh, accuracy)]
    made = {
        "seed": seed,
        "folder": 0 if seed < 4 else 1,
        "status": "finished",
        "note": "",
        "measures": {k: rounded(v, 5) for k, v in measures.items()},
        "images_per_second": rate * math.exp(rng.gauss(0, 0.01)),
        "wall_seconds": tasks * 10000 / rate,
        "peak_bytes": int(180e6 * (1.22 if "arrow" in name else 1.0)),
        "updates": 200 * tasks,
        "skipped": 0,
        "scalars": {},
    }
    if "arrow" in name:
        made["scalars"] = {
            "arrow.damping": rounded([0.02 * math.exp(-t / tasks) * math.exp(rng.gauss(0, 0.1)) for t in range(tasks)]),
            "arrow.alpha": rounded([0.3 + 0.4 * t / tasks + rng.gauss(0, 0.01) for t in range(tasks)]),
        }
    if options.get("curves"):
        made["curves"] = rounded(
            [
                [0.2 + rng.gauss(0, 0.01)] + [a - (a - 0.2) * math.exp(-speed * 1.1 * e) for e in range(1, 5)]
                for a in accuracy
            ]
        )
    if options.get("diagnosis"):
        made["diagnosis"] = diagnosis(rng, loss, thin(tasks, options["diagnosis"]), options["blocks"], 4, 64, tasks)
    if options.get("spectra") and seed == 1:
        made["spectra"] = spectra(rng, loss, [1, tasks // 2, tasks], options["blocks"], 48, tasks)
        made["maps"] = attention_maps(rng, loss, [1, tasks // 2, tasks], options["blocks"], 6, 8, tasks)
    return made


def cut(made, tasks, status, note):
    """Leaves the first tasks of a run only."""
    made["status"], made["note"] = status, note
    for key in ("measures", "scalars"):
        made[key] = {k: v[:tasks] for k, v in made[key].items()}
    made["curves"] = made.get("curves", [])[:tasks]
    if "diagnosis" in made:
        d = made["diagnosis"]
        keep = sum(t <= tasks for t in d["tasks"])
        d["tasks"] = d["tasks"][:keep]
        for part in ("blocks", "model", "heads"):
            d[part] = {k: v[:keep] for k, v in d[part].items()}
    for key in ("spectra", "maps"):
        made.pop(key, None)


def group(name, methods, seeds, tasks, seed, **options):
    rng = random.Random(seed)
    difficulty = [rng.gauss(0, 0.035) for _ in range(tasks)]
    fresh = [0.665 + d for d in difficulty] if "fresh" in methods else None
    made = {
        "name": name,
        "notices": [],
        "folders": ["runs/cifar100-50-small", "runs/cifar100-50-small-more"],
        "config": [
            ["stream", "cifar100"],
            ["tasks", str(tasks)],
            ["epochs", "4"],
            ["batch", "50"],
            ["dim", "64"],
            ["depth", "6"],
            ["heads", "4"],
            ["patch", "4"],
            ["precision", "bf16"],
            ["augment", "flip,crop"],
            ["device", "cpu"],
        ],
        "differences": [{"key": "seeds", "values": ["1,2,3", "4,5"]}, {"key": "threads", "values": ["2", "4"]}],
        "tasks": tasks,
        "chance": 0.2,
        "task_names": [f"classes {5 * t % 100} to {5 * t % 100 + 4}" for t in range(tasks)],
        "revisit": [t >= 20 for t in range(tasks)],
        "methods": [],
    }
    for m in methods:
        runs = [
            run(rng, m, s, tasks, difficulty, None if m == "fresh" else fresh, options) for s in range(1, seeds + 1)
        ]
        made["methods"].append({"name": m, "settings": METHODS[m][4], "seeds": runs})
    if options.get("trouble"):
        cut(made["methods"][1]["seeds"][1], 12, "diverged", "the loss is not finite")
        cut(made["methods"][0]["seeds"][2], 17, "unfinished", "")
        made["notices"] = [
            f"{methods[1]}, seed 2 diverged in task 13: the loss is not finite",
            f"{methods[0]}, seed 3: interrupted after task 17 of {tasks}",
        ]
        made["methods"][2]["seeds"][0]["measures"]["task_accuracy"][5] = None
    if options.get("spectra"):
        made["samples"] = [sample(rng, i) for i in range(6)]
    summarise(made, fresh)
    return made


def summarise(made, fresh):
    mean = lambda v: sum(v) / len(v)
    known = lambda v: [x for x in v if x is not None]
    measures = {
        "aat": lambda s: mean(known(s["task_accuracy"])),
        "last_quarter": lambda s: mean(known(s["task_accuracy"])[-max(1, len(s["task_accuracy"]) // 4) :]),
        "online": lambda s: mean(s["online_accuracy"]),
        "slope": lambda s: slope(known(s["task_accuracy"])),
    }
    per_seed = {}
    for m in made["methods"]:
        finished = [s for s in m["seeds"] if s["status"] == "finished"]
        values = {k: {s["seed"]: f(s["measures"]) for s in finished} for k, f in measures.items()}
        if fresh and m["name"] != "fresh":
            values["gap"] = {s["seed"]: mean(s["measures"]["gap"]) for s in finished}
            values["time_ratio"] = {s["seed"]: 1 + 6 * mean(s["measures"]["gap"]) + 0.01 * s["seed"] for s in finished}
        for k in ("images_per_second", "wall_seconds", "peak_bytes"):
            values[k] = {s["seed"]: s[k] for s in finished}
        per_seed[m["name"]] = values
        m["summary"] = {k: t_interval(list(v.values())) for k, v in values.items()}
    made["tests"] = []
    names = [m["name"] for m in made["methods"]]
    for k in ("aat", "last_quarter"):
        for i, a in enumerate(names):
            for b in names[i + 1 :]:
                common = sorted(set(per_seed[a][k]) & set(per_seed[b][k]))
                d = [per_seed[a][k][s] - per_seed[b][k][s] for s in common]
                s = t_interval(d)
                made["tests"].append(
                    {
                        "measure": k,
                        "a": a,
                        "b": b,
                        "difference": s["mean"],
                        "low": s.get("low"),
                        "high": s.get("high"),
                        "p": p_value(d) if len(d) > 1 else None,
                        "n": len(d),
                    }
                )


def odd():
    """What real runs can bring: gaps, nothing at all, numbers that are none, many methods, names like markup."""
    rng = random.Random(5)
    some = lambda n: [None if rng.random() < 0.2 else round(rng.random(), 3) for _ in range(n)]
    run_of = lambda seed, n: {
        "seed": seed,
        "folder": 0,
        "status": "finished",
        "measures": {
            "task_accuracy": some(n),
            "train_loss": some(n),
            "mystery": [1e9 * rng.random() for _ in range(n)],
            "gap": [None] * n,
        },
    }
    methods = [
        {
            "name": f"method-{i}<i>&" if i else "a:very=long:name=of:a=method:with=many:options=" + "1" * 60,
            "settings": "x",
            "seeds": [run_of(1, 9), run_of(2, 6)],
            "summary": {"aat": {"mean": 0.5 + i / 100}},
        }
        for i in range(13)
    ]
    methods[1]["seeds"] = []
    methods[2]["seeds"][0]["measures"] = {}
    methods[3]["seeds"][0].update(status="diverged", measures={"task_accuracy": []}, note="at once")
    del methods[4]["summary"], methods[5]["seeds"][1]["measures"]
    methods[6]["seeds"][0]["diagnosis"] = {
        "tasks": [1, 4, 9],
        "blocks": {
            "unheard.of.key": [[0.0, None, -1.5], [None] * 3, [1.0, 2.0, float("nan")]],
            "weight.q.norm": [[0, 0, 0]] * 3,
            "weight.v.norm": [[1, 2, 3]],
            "plain": [[5, 5, 5]] * 3,
        },
        "model": {},
        "heads": {},
    }
    methods[7]["seeds"][0]["diagnosis"] = {"tasks": [], "blocks": {}, "model": {"features.effective_rank": []}}
    methods[8]["seeds"][0].update(
        spectra={"tasks": [2], "values": {"tokens": [[[3, 1, 0, None]]]}},
        curves=[[], [0.1], [0.1, None, 0.4], None],
        scalars={"trac.scale": [1e-9, 1, 1e9]},
        images_per_second=float("inf"),
    )
    tests = [
        {
            "measure": "aat",
            "a": methods[1]["name"],
            "b": "gone",
            "difference": 0.1,
            "low": None,
            "high": None,
            "p": None,
            "n": 1,
        }
    ]
    return {
        "name": "odd </script><b>",
        "tasks": 9,
        "chance": None,
        "revisit": [None, True, False],
        "methods": methods,
        "tests": tests,
        "notices": [f"notice {i}" for i in range(9)],
        "folders": [],
        "differences": [{"key": "k", "values": []}],
        "config": [],
    }


def report(title, groups, problems=()):
    return {
        "title": title,
        "evergrad": "0.1.0",
        "written": "2026-11-25 22:10",
        "problems": list(problems),
        "groups": groups,
    }


def assemble(data):
    d3 = next((pathlib.Path(p) for p in D3 if pathlib.Path(p).exists()), None)
    if d3 is None:
        sys.exit("no d3.min.js: install node-d3")
    page = (PAGE / "page.html").read_text(encoding="utf-8")
    for mark, content in (
        ("{{data}}", json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")),
        ("/*{{d3}}*/", d3.read_text(encoding="utf-8")),
        ("/*{{script}}*/", (PAGE / "page.js").read_text(encoding="utf-8")),
    ):
        before, after = page.split(mark)
        page = before + content + after
    return page


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    folder.mkdir(parents=True, exist_ok=True)
    names = list(METHODS)
    tiny_run = {"seed": 1, "folder": 0, "status": "finished", "measures": {"task_accuracy": [0.31]}}
    pages = {
        "example": report(
            "runs/cifar100-50-small",
            [
                group(
                    "class-subset on cifar100: 50 tasks, 5 classes each, 4 epochs",
                    names,
                    5,
                    50,
                    1,
                    curves=True,
                    diagnosis=50,
                    blocks=6,
                    spectra=True,
                    trouble=True,
                ),
                group(
                    "input-permutation on fashion-mnist: 20 tasks, 10 classes, 3 epochs",
                    ["adamw", "arrow", "sgd"],
                    3,
                    20,
                    2,
                ),
            ],
            ["runs/old: summary.json is torn: read from metrics.jsonl <b>&amp;</b>"],
        ),
        "long": report(
            "runs/permuted-2000",
            [group("input-permutation on mnist: 2000 tasks", names, 5, 2000, 3, diagnosis=200, blocks=6)],
        ),
        "tiny": report(
            "runs/first",
            [
                {
                    "name": "class-subset on procedural: 1 task",
                    "tasks": 1,
                    "folders": ["runs/first"],
                    "methods": [{"name": "adamw", "seeds": [tiny_run]}],
                }
            ],
        ),
        "odd": report("runs/odd", [odd(), {"name": "no methods", "methods": []}, {"methods": [{"name": "lonely"}]}]),
        "empty": report("runs/nothing", []),
    }
    for name, data in pages.items():
        (folder / f"{name}.json").write_text(json.dumps(data), encoding="utf-8")
        (folder / f"{name}.html").write_text(assemble(data), encoding="utf-8")
        print(folder / f"{name}.html", f"{(folder / (name + '.html')).stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
