#!/usr/bin/env python3
"""Writes tests/cases/reference_methods.safetensors: a small network trained by Muon, TRAC, continual
backpropagation, ReDo and SAM, written here a second time in PyTorch, in double, straight from their papers and released code.

    python3 docs/benchmarks/reference_methods.py tests/cases/reference_methods.safetensors

tests/optim/test_reference_methods.cpp feeds evergrad's methods the recorded gradients (rounded to fp32, and used in
that form here too) and compares every weight after every step. The network, y = gain * (fc2 gelu(fc1 x) + proj x) under
cross-entropy, has one of everything that the methods tell apart: wide and tall hidden matrices, hidden units, a bias,
and a norm's gain. Base rules are torch.optim's, except where replaced units need a step count of their own. New rows
are the constant 0.25: random draws are evergrad's own and tested elsewhere.

Needs torch and safetensors. The file depends on PyTorch's generator and rounding: a new version may change its last
digits, which is no reason to replace it.
"""
import argparse
import math
import os

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

INPUTS, HIDDEN, OUTPUTS, BATCH = 3, 8, 4, 16
SHAPES = {
    "proj": (OUTPUTS, INPUTS),
    "fc1": (HIDDEN, INPUTS),
    "bias": (HIDDEN,),
    "fc2": (OUTPUTS, HIDDEN),
    "gain": (OUTPUTS,),
}
DECAYS = {"proj", "fc1", "fc2"}
NEW_ROW = 0.25  # this and every weight decay are exact in fp32, as which evergrad keeps them


def start(seed):
    g = torch.Generator().manual_seed(seed)
    weights = {n: torch.randn(s, generator=g) * 0.5 for n, s in SHAPES.items()}
    weights["gain"] += 1.0
    return {n: w.double().requires_grad_() for n, w in weights.items()}


class Record:
    """What a run did: the weights it began with, and gradients, activations and weights of every step."""

    def __init__(self, seed, fixed_batch=False):
        self.weights = start(seed)
        self.seed, self.fixed_batch, self.step = seed, fixed_batch, 0
        self.out = {f"start/{n}": w.detach().float().clone() for n, w in self.weights.items()}
        self.steps = {}

    def keep(self, name, value):
        self.steps.setdefault(name, []).append(value.detach().clone())

    def gradient(self, name="gradient"):
        """Forward and backward on this step's batch; returns mean |h| per hidden unit."""
        g = torch.Generator().manual_seed(1000 * self.seed + (0 if self.fixed_batch else self.step))
        x = torch.randn(BATCH, INPUTS, generator=g).double()
        labels = torch.randint(0, OUTPUTS, (BATCH,), generator=g)
        w = self.weights
        h = F.gelu(x @ w["fc1"].T + w["bias"])
        loss = F.cross_entropy(w["gain"] * (h @ w["fc2"].T + x @ w["proj"].T), labels)
        for p in w.values():
            p.grad = None
        loss.backward()
        for n, p in w.items():
            rounded = p.grad.float()
            self.keep(f"{name}/{n}", rounded)
            p.grad = rounded.double()
        activity = h.detach().abs().mean(0)
        if name == "gradient":
            self.keep("activity", activity)
        return activity

    def end_step(self):
        for n, p in self.weights.items():
            self.keep(f"weight/{n}", p)
        self.step += 1

    def tensors(self, name):
        out = {f"{name}/{k}": v for k, v in self.out.items()}
        out.update({f"{name}/{k}": torch.stack(v).contiguous() for k, v in self.steps.items()})
        return out


def orthogonalise(u):
    """The released quintic iteration, in double instead of bf16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = u.T if u.shape[0] > u.shape[1] else u
    x = x / (x.norm() + 1e-30)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if u.shape[0] > u.shape[1] else x


def muon(steps=10, lr=0.02, decay=0.125, mu=0.95):
    r = Record(1)
    rest = [r.weights["bias"], r.weights["gain"]]
    adamw = torch.optim.AdamW(rest, lr=3e-4, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)
    momentum = {n: torch.zeros_like(r.weights[n]) for n in DECAYS}
    for _ in range(steps):
        r.gradient()
        adamw.step()
        with torch.no_grad():
            for n in sorted(DECAYS):
                w, g, m = r.weights[n], r.weights[n].grad, momentum[n]
                m.lerp_(g, 1 - mu)
                x = orthogonalise(g.lerp(m, mu))
                w.mul_(1 - lr * decay).sub_(lr * math.sqrt(max(1.0, w.shape[0] / w.shape[1])) * x)
        r.end_step()
    return r


def erfi(x):
    """2/sqrt(pi) times the integral of exp(t^2) from 0 to x, by Simpson's rule on 20,000 intervals."""
    t = torch.linspace(0.0, x, 20001, dtype=torch.float64)
    f = torch.exp(t * t)
    sums = f[0] + f[-1] + 4.0 * f[1:-1:2].sum() + 2.0 * f[2:-1:2].sum()
    return float(2.0 / math.sqrt(math.pi) * (x / 60000.0) * sums)


def trac(steps=45, lr=0.05, decay=0.0625):
    """Accumulator form around torch.optim.AdamW."""
    r = Record(2, fixed_batch=True)
    groups = [{"params": [r.weights[n] for n in SHAPES if n in DECAYS], "weight_decay": decay},
              {"params": [r.weights[n] for n in SHAPES if n not in DECAYS], "weight_decay": 0.0}]
    base = torch.optim.AdamW(groups, lr=lr)
    forgets = [0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999]
    kappa = 1e-8 / erfi(1.0 / math.sqrt(2.0))
    sigma, v, scale = [1e-8] * 6, [0.0] * 6, 0.0
    reference = {n: w.detach().clone() for n, w in r.weights.items()}
    way = {n: torch.zeros_like(w) for n, w in reference.items()}
    for _ in range(steps):
        r.gradient()
        h = sum(float((r.weights[n].grad * way[n]).sum()) for n in SHAPES)
        before = {n: w.detach().clone() for n, w in r.weights.items()}
        base.step()
        v = [b * b * x + h * h for b, x in zip(forgets, v)]
        sigma = [b * x - h for b, x in zip(forgets, sigma)]
        scale = sum(kappa * erfi(s / (math.sqrt(2.0) * math.sqrt(x) + 1e-8)) for s, x in zip(sigma, v))
        with torch.no_grad():
            for n, w in r.weights.items():
                way[n] += w - before[n]
                w.copy_(reference[n] + max(scale, 0.0) * way[n])
        r.keep("scale", torch.tensor([scale, h], dtype=torch.float64))
        r.end_step()
    return r


def replace(weights, units, *moments):
    """Rows of fc1 anew, their biases and columns of fc2 zero, and with them their part of every moment."""
    with torch.no_grad():
        for i, array in enumerate((weights, *moments)):
            array["fc1"][units] = NEW_ROW if i == 0 else 0.0
            array["bias"][units] = 0.0
            array["fc2"][:, units] = 0.0


def cbp(steps=12, lr=1e-2, decay=0.0625, rate=0.1, maturity=3, utility_decay=0.99):
    """Contribution utility over AdamW, whose step count belongs to the hidden unit."""
    r = Record(3)
    b1, b2, eps = 0.9, 0.999, 1e-8
    m = {n: torch.zeros(s, dtype=torch.float64) for n, s in SHAPES.items()}
    v = {n: torch.zeros(s, dtype=torch.float64) for n, s in SHAPES.items()}
    age, utility = (torch.zeros(HIDDEN, dtype=torch.float64) for _ in range(2))
    due, total = 0.0, 0
    for step in range(steps):
        activity = r.gradient()
        counts = {"fc1": age[:, None], "bias": age, "fc2": age[None, :]}
        with torch.no_grad():
            for n, w in r.weights.items():
                t = counts.get(n, torch.tensor(float(step), dtype=torch.float64)) + 1.0
                w.mul_(1 - lr * (decay if n in DECAYS else 0.0))
                m[n] = b1 * m[n] + (1 - b1) * w.grad
                v[n] = b2 * v[n] + (1 - b2) * w.grad**2
                w.sub_(lr * (m[n] / (1 - b1**t)) / ((v[n] / (1 - b2**t)).sqrt() + eps))
        age += 1.0
        utility = utility_decay * utility + (1 - utility_decay) * activity * r.weights["fc2"].detach().abs().mean(0)
        mature = age > maturity
        due += rate * float(mature.sum())
        count, due = int(due), due - int(due)
        if count:
            corrected = torch.where(mature, utility / (1 - utility_decay**age), torch.inf)
            order = corrected.sort().values
            assert order[count] > 1.001 * order[count - 1], "rounding would choose"
            units = corrected.argsort()[:count]
            replace(r.weights, units, m, v)
            age[units] = utility[units] = 0.0
            total += count
        r.keep("replaced", torch.tensor([float(total)], dtype=torch.float64))
        r.end_step()
    assert total >= 3
    return r


def redo(steps=12, lr=0.05, decay=2**-11, tau=0.6, every=4):
    """Over torch.optim.SGD with momentum 0.9 and coupled decay."""
    r = Record(4)
    groups = [{"params": [r.weights[n] for n in SHAPES if n in DECAYS], "weight_decay": decay},
              {"params": [r.weights[n] for n in SHAPES if n not in DECAYS], "weight_decay": 0.0}]
    base = torch.optim.SGD(groups, lr=lr, momentum=0.9)
    total = 0
    for step in range(steps):
        activity = r.gradient()
        base.step()
        if step and step % every == 0:
            score = activity / (activity.mean() + 1e-9)
            assert ((score - tau).abs() > 5e-3).all(), "rounding would choose"
            units = (score <= tau).nonzero().flatten()
            replace(r.weights, units, {n: base.state[w]["momentum_buffer"] for n, w in r.weights.items()})
            total += len(units)
        r.keep("replaced", torch.tensor([float(total)], dtype=torch.float64))
        r.end_step()
    assert 1 <= total
    return r


def sam(steps=12, lr=0.05, decay=2**-11, rho=0.25):
    """Foret et al. 2021 over torch.optim.SGD with momentum 0.9: the second gradient is taken rho uphill."""
    r = Record(5)
    groups = [{"params": [r.weights[n] for n in SHAPES if n in DECAYS], "weight_decay": decay},
              {"params": [r.weights[n] for n in SHAPES if n not in DECAYS], "weight_decay": 0.0}]
    base = torch.optim.SGD(groups, lr=lr, momentum=0.9)
    for _ in range(steps):
        r.gradient()
        length = torch.sqrt(sum((w.grad ** 2).sum() for w in r.weights.values()))
        own = {n: w.detach().clone() for n, w in r.weights.items()}
        with torch.no_grad():
            for n, w in r.weights.items():
                w += rho * w.grad / (length + 1e-12)
                r.keep(f"uphill/{n}", w)
        r.gradient("slope")
        with torch.no_grad():
            for n, w in r.weights.items():
                w.copy_(own[n])
        base.step()
        r.end_step()
    return r


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file")
    o = p.parse_args()
    out = {}
    for name, run in (("muon", muon), ("trac", trac), ("cbp", cbp), ("redo", redo), ("sam", sam)):
        r = run()
        out.update(r.tensors(name))
        last = {k: [round(float(x), 6) for x in v[-1]] for k, v in r.steps.items() if k in ("scale", "replaced")}
        print(f"{name}: {r.step} steps {last or ''}")
    save_file(out, o.file, {"torch": torch.__version__})
    print(f"{o.file}: {os.path.getsize(o.file)} bytes")


if __name__ == "__main__":
    main()
