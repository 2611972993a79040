"""What tests/gpu keeps of its calls: one JSON file per card, made whole over several calls, and the tables that it says.

A call runs some of the parts. What it measured is put into what earlier calls left, figure by figure, each with its time and
commit; every ratio and every gate is then computed from the whole file. So parts may be run by name, in any order, each in its
own few minutes.
"""
import datetime
import json
import os
import pathlib
import re
import statistics

import gpu_commit
from gpu_models import MODELS, STEPS

OK, FAILED, OUT_OF_TIME, NOT_RUN = "ok", "FAILED", "ran out of time", "not run"
BENCHES = {"bench": "hand", "bench-library": "library", "bench-auto": "auto"}  # part: --kernels
REPEATS = {"hand": "bitwise_equal", "library": "bitwise_equal_library", "auto": "bitwise_equal_auto"}  # --kernels: figure
PYTORCH = {"pytorch-eager": "eager", "pytorch-compile": "compile", "pytorch-max-autotune": "max-autotune"}
BIG, SMALL = "ViT-B/16 224 @256", "ViT 32/4 D=192 @1024"  # the shapes whose kernels are timed by themselves: 197 and 65 tokens
KERNELS = {"bench": (BIG, SMALL), "bench-auto": (BIG,)}  # part: models whose kernels it times; `auto` says what wgmma and libraries reach
LADDERS = ("attention", "layer_norm", "matmul")  # of `evergrad bench --ladder`


def variant_key(model, variant):
    return f"{model} | {variant}"


def slug(card):
    return re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M")


def read(path):
    """What earlier calls left; nothing when there is no file."""
    if not path.exists():
        return {}
    try:
        parts = json.loads(path.read_text())["parts"]
        assert all(isinstance(p["state"], str) and isinstance(p["figures"], dict) for p in parts.values())
        return parts
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as e:
        raise SystemExit(f"tests/gpu: {path} is not a file that tests/gpu wrote ({type(e).__name__}: {e}); move it away, or give "
                         "another folder with --out")


def read_elsewhere(path, card):
    """What calls on another machine left, with the same card; a file that somebody names must be there."""
    if not path.exists():
        raise SystemExit(f"tests/gpu: --earlier {path}: there is no such file")
    parts, of = read(path), json.loads(path.read_text()).get("card")
    if of != card:
        raise SystemExit(f"tests/gpu: --earlier {path}: its figures are of {of}, and this machine has {card}")
    return parts


def merge(old, new):
    """Parts of this call over those of earlier ones. Figures that this call did not measure stay, with their time and commit; a
    part that was not run now does not replace one that was."""
    merged = dict(old)
    for name, part in new.items():
        before = old.get(name)
        if before and part["state"] == NOT_RUN and before["state"] != NOT_RUN:
            continue
        merged[name] = {**part, "figures": {**(before["figures"] if before else {}), **part["figures"]}}
    return merged


def write_whole(path, text):
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def write(folder, card, parts):
    base = folder / f"gpu-{slug(card)}"
    write_whole(base.with_suffix(".json"), json.dumps({"card": card, "parts": parts}, indent=1) + "\n")
    write_whole(base.with_suffix(".md"), markdown(card, parts))
    return base.with_suffix(".json")


# ---- reading figures ----------------------------------------------------------------------------------------------------------
class Figure:
    def __init__(self, value, entry, what=""):
        self.value, self.what, self.p95_ms = value, what, entry.get("p95_ms")
        self.commit, self.time = entry.get("commit", "?"), entry.get("time", "?")


def figures(parts, name):
    return parts.get(name, {}).get("figures", {})


def measured(parts, name, commit):
    """Names of the figures that part `name` has from this commit: what a part that goes on need not do again."""
    return {key for key, f in figures(parts, name).items() if gpu_commit.same(f["commit"], commit)}


def best_evergrad(parts, model):
    found = [Figure(f["images_per_second"], f, f"--kernels {mode}") for part, mode in BENCHES.items()
             if (f := figures(parts, part).get(model))]
    return max(found, key=lambda f: f.value, default=None)


def best_pytorch(parts, model):
    found = [Figure(f["images_per_second"], f, key.split(" | ")[1]) for part in PYTORCH for key, f in figures(parts, part).items()
             if key.split(" | ")[0] == model]
    return max(found, key=lambda f: f.value, default=None)


def ratio(parts, model):
    ours, theirs = best_evergrad(parts, model), best_pytorch(parts, model)
    if not ours or not theirs:
        return None
    untried = [part for part, mode in PYTORCH.items() if not any(k.startswith(model + " | ") for k in figures(parts, part))]
    what = f"{ours.what} over {theirs.what}" + (f"; not measured: {', '.join(untried)}" if untried else "")
    return Figure(ours.value / theirs.value, {"commit": ours.commit, "time": ours.time}, what)


def kernel(parts, model, name, part="bench"):
    """(row, copy bandwidth, entry) of one kernel by itself; evergrad's own, as its rule chooses them, unless `part` is another."""
    entry = figures(parts, part).get(model)
    rows = entry["report"].get("kernels", []) if entry else []
    return next(((r, entry["report"]["ceilings"]["copy_gb_per_s"], entry) for r in rows if r["name"] == name), None)


def kernel_ms(parts, name):
    """Of ViT-B's kernels: the fastest that was measured, since a run with --kernels auto takes that one."""
    found = {BENCHES[part]: k for part in KERNELS if (k := kernel(parts, BIG, name, part))}
    if not found:
        return None
    best = min(found, key=lambda mode: found[mode][0]["ms"])
    others = [f"{mode} {k[0]['ms']:.3f} ms" for mode, k in found.items() if mode != best]
    return Figure(found[best][0]["ms"], found[best][2], "; ".join([f"--kernels {best}", *others]))


def tflops(parts, model, name):
    found = kernel(parts, model, name)
    return Figure(found[0]["flops"] / found[0]["ms"] * 1e-9, found[2], f"{found[0]['ms']:.3f} ms") if found else None


def of_copy(parts, model, name):
    """Percent of the measured copy bandwidth, the bytes counted once each: the memory floor over the measured time."""
    found = kernel(parts, model, name)
    if not found:
        return None
    row, copy, entry = found
    floor_ms = row["bytes"] / copy * 1e-6
    return Figure(100.0 * floor_ms / row["ms"], entry, f"{row['ms']:.3f} ms, floor {floor_ms:.3f} at {copy:.0f} GB/s")


def arrow_share(parts, ring):
    entry = figures(parts, "arrow").get(BIG)
    if not entry:
        return None
    shares = [100.0 * (arrow - base) / base for base, arrow in zip(entry["ms"]["adamw"], entry["ms"][f"arrow:ring={ring}"])]
    return Figure(statistics.median(shares), entry, f"turns: {', '.join(f'{s:+.2f}' for s in shares)}")


def repeats(parts):
    """1 where every mode that was tried gave the same weights twice."""
    found = {mode: figures(parts, "repeat").get(key) for mode, key in REPEATS.items()}
    tried = {mode: f for mode, f in found.items() if f}
    if not tried:
        return None
    lacking = [mode for mode, f in found.items() if not f]
    what = f"--kernels {', '.join(tried)}" + (f"; not measured: {', '.join(lacking)}" if lacking else "")
    return Figure(1.0 if all(f["value"] for f in tried.values()) else 0.0, min(tried.values(), key=lambda f: f["time"]), what)


# What the kernels of ViT-B at batch 256 may take: what it is, its row in `evergrad bench`, milliseconds. The goals name all of
# them but the backward products of proj and qkv and the one of fc1's input, which are as large as their twins in the forward pass.
ACCEPTED = [
    ("qkv", "matmul qkv", 0.28), ("proj", "matmul proj", 0.10), ("fc1 + bias + GELU", "matmul fc1 + bias + gelu", 0.38),
    ("fc2", "matmul fc2", 0.37), ("fc2, d input + GELU'", "matmul d_hidden + dgelu", 0.39),
    ("fc2, d weight", "matmul d_fc2_weight + bias", 0.38), ("fc1, d input", "matmul d_fc1_input", 0.37),
    ("fc1, d weight", "matmul d_fc1_weight", 0.38), ("proj, d input", "matmul d_proj_input", 0.10),
    ("proj, d weight", "matmul d_proj_weight + bias", 0.10), ("qkv, d input", "matmul d_qkv_input", 0.28),
    ("qkv, d weight", "matmul d_qkv_weight + bias", 0.28), ("attention forward", "attention_fwd", 0.17),
    ("attention backward", "attention_bwd", 0.35), ("residual + layer norm", "layer_norm_fwd + residual", 0.12),
    ("residual + layer norm backward", "layer_norm_bwd + residual", 0.125), ("AdamW, all weights", "adam_update", 0.97),
    ("cross entropy", "cross_entropy", 0.08),
]

# (what, unit, bound, at least or at most, how to find it in the parts); the target of ViT-B is 4,500.
GATES = [
    *[(f"{m}: images/s", "/s", gate, "least", lambda p, m=m: best_evergrad(p, m)) for m, gate in
      ((BIG, 3900), ("ViT-S/16 224 @256", 11000), ("ViT-Ti/16 224 @256", 21000), (SMALL, 60000))],
    (f"{BIG}: over the best PyTorch", "x", 1.25, "least", lambda p: ratio(p, BIG)),
    (f"{SMALL}: over the best PyTorch", "x", 1.5, "least", lambda p: ratio(p, SMALL)),
    *[(f"{BIG}: {what}", "ms", ms, "most", lambda p, row=row: kernel_ms(p, row)) for what, row, ms in ACCEPTED],
    ("attention forward, S=197, d=64", "TFLOP/s", 180, "least", lambda p: tflops(p, BIG, "attention_fwd")),
    ("attention backward, S=197, d=64", "TFLOP/s", 220, "least", lambda p: tflops(p, BIG, "attention_bwd")),
    ("attention forward, S=65: of the memory floor", "%", 60, "least", lambda p: of_copy(p, SMALL, "attention_fwd")),
    ("attention backward, S=65: of the memory floor", "%", 60, "least", lambda p: of_copy(p, SMALL, "attention_bwd")),
    ("layer norm forward: of copy bandwidth", "%", 85, "least", lambda p: of_copy(p, BIG, "layer_norm_fwd + residual")),
    ("layer norm backward: of copy bandwidth", "%", 85, "least", lambda p: of_copy(p, BIG, "layer_norm_bwd + residual")),
    ("AdamW: of copy bandwidth", "%", 88, "least", lambda p: of_copy(p, BIG, "adam_update")),
    ("ARROW, bf16 ring: share of ViT-B's step", "%", 0.3, "most", lambda p: arrow_share(p, "bf16")),
    ("ARROW, fp32 ring: share of ViT-B's step", "%", 0.6, "most", lambda p: arrow_share(p, "fp32")),
    ("weights after 100 steps equal, bit for bit", "", 1, "least", repeats),
]


def judge(parts):
    """(what, unit, bound, direction, figure or None, reached | MISSED | not measured) per gate."""
    rows = []
    for what, unit, bound, direction, find in GATES:
        figure = find(parts)
        if figure is None:
            result = "not measured"
        else:
            result = "reached" if (figure.value >= bound if direction == "least" else figure.value <= bound) else "MISSED"
        rows.append((what, unit, bound, direction, figure, result))
    return rows


# ---- tables -------------------------------------------------------------------------------------------------------------------
def number(value):
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def markdown(card, parts):
    lines = [f"# {card}", "", "Written by `tests/gpu`, over one or more calls; each figure carries the commit that it was measured at.", "",
             "| part | result | seconds | when (UTC) | commit |", "|---|---|---|---|---|"]
    for name, p in parts.items():
        result = (p["state"] + (f": {p['why']}" if p.get("why") else "")).replace("|", "/")
        lines.append(f"| {name} | {result} | {sum(c['seconds'] for c in p['commands']):.0f} | {p['time']} | {p['commit']} |")
    if libraries := figures(parts, "build").get("libraries"):
        lines += ["", f"The build ({libraries['commit']}) has {', '.join(libraries['with']) or 'no library'}"
                  + (f" and **lacks {', '.join(libraries['without'])}**: what only these offer was not measured." if libraries["without"] else ".")]
    lines += ["", "## Numbers to reach", "", "| gate | wanted | measured | result | from | commit |", "|---|---|---|---|---|---|"]
    for what, unit, bound, direction, figure, result in judge(parts):
        wanted = f"at {direction} {number(bound)} {unit}".strip()
        measured = f"{number(figure.value)} {unit}".strip() if figure else "-"
        lines.append(f"| {what} | {wanted} | {measured} | {result} | {figure.what if figure else ''} | {figure.commit if figure else ''} |")
    lines += ["", "Shares above 100% mean that the data stayed in the second-level cache, or that a product by warpgroups went past the ceiling of mma.sync.", *steps_table(parts), *kernels_table(parts), *ladder_texts(parts)]
    return "\n".join(lines) + "\n"


def slow(model, figure):
    """The median time of a step, which the images/s are of, and what 95% of the steps are within."""
    if not figure or model not in MODELS:
        return "-"
    return f"{1e3 * MODELS[model]['batch'] / figure.value:.1f}, {f'{figure.p95_ms:.1f}' if figure.p95_ms else '-'}"


def steps_table(parts):
    models = {key.split(" | ")[0]: None for part in (*BENCHES, *PYTORCH) for key in figures(parts, part)}
    rows = []
    for model in models:
        ours, theirs, r = best_evergrad(parts, model), best_pytorch(parts, model), ratio(parts, model)
        each = [f"{f['images_per_second']:,.0f}" if (f := figures(parts, part).get(model)) else "-" for part in BENCHES]
        rows.append(f"| {model} | {' | '.join(each)} | {slow(model, ours)} | {theirs.what if theirs else '-'} | {number(theirs.value) if theirs else '-'} | "
                    f"{slow(model, theirs)} | {f'{r.value:.2f}' if r else '-'} | {ours.commit if ours else '-'} |")
    head = ["", "## One training step, bf16, images/s", "", f"By the median of {STEPS} steps; p95 is what 95% of them are within. Times are of the best of the three, and of that variant.", "",
            "| model @batch | hand | library | auto | median, p95 ms | best PyTorch variant | PyTorch | median, p95 ms | best / best | commit |",
            "|---|---|---|---|---|---|---|---|---|---|"]
    return head + rows if rows else []


def kernels_table(parts):
    lines = []
    for part, model in ((part, model) for part, models in KERNELS.items() for model in models):
        entry = figures(parts, part).get(model)
        if not entry or not entry["report"].get("kernels"):
            continue
        lines += ["", f"## Kernels at {model}, --kernels {BENCHES[part]} ({entry['commit']})", "", "| kernel | ms | TFLOP/s | GB/s | bound | of ceiling |", "|---|---|---|---|---|---|"]
        lines += [f"| {k['name']} | {k['ms']:.3f} | {k['flops'] / k['ms'] * 1e-9:.1f} | {k['bytes'] / k['ms'] * 1e-6:.0f} | {k['bound']} | "
                  f"{100 * k['ceiling_share']:.0f}% |" for k in entry["report"]["kernels"]]
        lines += choices_table(entry["report"].get("choices") or [])
    return lines


def choices_table(choices):
    """Which kernel a call got, and what each of its candidates took: here a product by wgmma stands beside the library's."""
    def tried(times):
        return ", ".join(f"{name} {ms:.3f} ms" if isinstance(ms, (int, float)) else f"{name}: {ms}" for name, ms in (times or {}).items())
    cells = [[c["call"], c["kernel"], c["from"], tried(c["ms"])] for c in choices]
    rows = ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in cells]
    return ["", "| call | kernel chosen | from | candidates |", "|---|---|---|---|", *rows] if rows else []


def ladder_texts(parts):
    lines = []
    for name, entry in figures(parts, "ladders").items():
        lines += ["", f"## The ladder of {name} at {BIG} ({entry['commit']})", "", "```text", *entry["text"].strip().splitlines(), "```"]
    return lines
