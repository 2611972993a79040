#!/usr/bin/env python3
"""Ranks as real processes: how they find each other, when they refuse to start, and what happens when one dies, stops or is late.

Usage: test_rendezvous.py --source DIR --build DIR [--only WORD]       two hosts, which need root: --only two_hosts
Needs no MPI: processes are started by hand with the variables that mpirun, srun and torchrun would set.
"""
import argparse
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from rank_hosts import Unavailable

SPECIAL = ["test_two_hosts_and_a_cut"]  # needs means that a machine may lack: a ctest of its own, skipped there (77)
LOST = 75  # kLostRankExitCode
DEADLINE = 4.0  # --step-deadline of the runs here, seconds
# What a machine that is busy with other things may add to a deadline. Nothing is asserted about speed: the point of a
# limit is that nothing hangs.
SLACK = 20.0


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def torchrun(rank, size, port, nonce=""):
    e = {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return e | ({"EVERGRAD_NONCE": nonce} if nonce else {})


def mpirun(rank, size, job):
    return {"OMPI_COMM_WORLD_RANK": str(rank), "OMPI_COMM_WORLD_SIZE": str(size), "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
            "OMPI_COMM_WORLD_LOCAL_SIZE": str(size), "PMIX_NAMESPACE": job}


def srun(rank, size, port):
    return {"SLURM_PROCID": str(rank), "SLURM_NTASKS": str(size), "SLURM_LOCALID": str(rank), "SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7",
            "SLURM_STEP_NODELIST": "localhost", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}


class Process:
    def __init__(self, command, environment):
        clean = {k: v for k, v in os.environ.items() if not re.match(r"(OMPI|PMIX?|SLURM|EVERGRAD|MASTER)_|RANK$|WORLD_SIZE$|LOCAL_", k)}
        self.p = subprocess.Popen([str(c) for c in command], env=clean | environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True)
        self.out, self.err = [], []
        self.readers = [threading.Thread(target=self.read, args=a) for a in ((self.p.stdout, self.out), (self.p.stderr, self.err))]
        for r in self.readers:
            r.start()

    def read(self, stream, lines):
        for line in stream:
            lines.append(line)

    def wait_for(self, line, limit=60):
        until = time.time() + limit
        while not any(l.startswith(line) for l in list(self.out)):
            if time.time() > until or self.p.poll() is not None:
                raise AssertionError(f"'{line}' did not come\n{self.text()}")
            time.sleep(0.005)

    def end(self, limit):
        try:
            code = self.p.wait(limit)
        except subprocess.TimeoutExpired:
            self.p.kill()
            raise AssertionError(f"still running after {limit} s\n{self.text()}")
        for r in self.readers:
            r.join()
        return code

    def text(self):
        return f"--- stdout\n{''.join(self.out)}--- stderr\n{''.join(self.err)}"


class Start:
    """Some processes that are gone when the block ends."""

    def __init__(self, commands_and_environments):
        self.ranks = [Process(c, e) for c, e in commands_and_environments]

    def __enter__(self):
        return self.ranks

    def __exit__(self, *_):
        for r in self.ranks:
            if r.p.poll() is None:
                r.p.kill()
                r.p.wait()


def expect(process, code, *parts, limit=60):
    got = process.end(limit)
    assert got == code, f"exit code {got}, expected {code}\n{process.text()}"
    for part in parts:
        assert re.search(part, process.text()), f"expected /{part}/ in\n{process.text()}"


class Tests:
    def __init__(self, build, scratch):
        self.evergrad, self.probe, self.scratch = build / "evergrad", build / "tests" / "rank_probe", scratch
        self.random = random.Random(20)

    def info(self, environments, *flags):
        return Start([([self.evergrad, "info", "--ranks", "--rank-deadline", "30", *flags], e) for e in environments])

    def run(self, size, flags=(), special=None, folder=None, rendezvous=torchrun):
        """Ranks of rank_probe; special: {rank: further flags}."""
        port = free_port()
        common = ["--step-deadline", DEADLINE, *flags] + (["--run", folder] if folder else [])
        return Start([([self.probe, *common, *(special or {}).get(r, [])], rendezvous(r, size, port)) for r in range(size)])

    def folder(self):
        return pathlib.Path(tempfile.mkdtemp(dir=self.scratch))

    def flight(self, folder, rank):
        return json.loads((folder / f"flight-rank-{rank}.json").read_text())

    # ---- meeting ----------------------------------------------------------------------------------------------------

    def test_three_ranks_meet(self):
        port, other = free_port(), free_port()
        folder = self.folder()
        by_file = {"EVERGRAD_RENDEZVOUS": f"file://{folder}", "EVERGRAD_NONCE": "a b/c"}
        for environments, how in (
                ([torchrun(r, 3, port) for r in range(3)], "torchrun"), ([srun(r, 3, other) for r in range(3)], "srun"),
                ([mpirun(r, 3, f"job{port}") for r in range(3)], "mpirun"), ([torchrun(r, 3, 9) | by_file for r in range(3)], "torchrun")):
            address = "-" if "EVERGRAD_RENDEZVOUS" in environments[0] else r"127\.0\.0\.1"
            with self.info(environments) as ranks:
                for r in ranks[1:]:
                    expect(r, 0)
                    assert not r.out, r.text()
                expect(ranks[0], 0, f"rank 0 of 3 .*started by {how}", r"(?m)^rank +local +host +address +pid", rf"(?m)^2 +2 +\S+ +{address} +\d+ +cpu")
        assert not list(folder.iterdir()), "the last rank leaves no files"

    def test_a_rank_that_comes_later(self):
        port = free_port()
        with self.info([torchrun(r, 3, port) for r in (1, 2)]) as early:
            time.sleep(0.7)
            with self.info([torchrun(0, 3, port)]) as last:
                for r in early + last:
                    expect(r, 0)

    def test_missing_ranks_are_named(self):
        port = free_port()
        with self.info([torchrun(r, 4, port) for r in (0, 2)], "--rank-deadline", "1") as ranks:
            for r in ranks:
                expect(r, 1)
            assert any(re.search(r"ranks 1, 3 of 4 have not arrived at 'card' after 1 s", r.text()) for r in ranks), ranks[0].text()
        with self.info([torchrun(1, 2, port)], "--rank-deadline", "0.5") as ranks:
            expect(ranks[0], 1, rf"rank 1 could not reach rank 0 at 127.0.0.1:{port} within 0.5 s", "MASTER_ADDR")

    def test_refusals(self):
        with self.info([{"RANK": "1", "MASTER_ADDR": "h"}]) as ranks:
            expect(ranks[0], 2, "RANK is set and WORLD_SIZE is not")
        port, files = free_port(), [self.scratch / "a.toml", self.scratch / "b.toml"]
        for i, f in enumerate(files):
            f.write_text(f"lr = {i}\n")
        commands = [([self.evergrad, "info", "--ranks", "--config", files[r == 1]], torchrun(r, 3, port)) for r in range(3)]
        with Start(commands) as ranks:
            for r in ranks:
                expect(r, 2, r"differ in configuration: \w+ \(ranks? [\d, ]+\), \w+ \(ranks? [\d, ]+\)")
            assert "local" in ranks[0].text() and "local  host" not in ranks[1].text()
        with self.run(2, special={1: ["--config", "other"]}) as ranks:
            for r in ranks:
                expect(r, 2, "configuration", "none")

    def test_a_second_start(self):
        port, folder = free_port(), self.folder()
        slow = ["--steps", "1000", "--step-ms", "20"]
        with Start([([self.probe, *slow], torchrun(r, 2, port, "n1")) for r in range(2)]) as first:
            first[0].wait_for("step 1")
            with Start([([self.probe], torchrun(r, 2, port, n)) for r, n in ((0, "n1"), (1, "n1"), (1, "n2"))]) as second:
                expect(second[0], 1, "cannot listen on port", "earlier start")
                expect(second[1], 2, "rank 1 has already arrived", "same rank")
                expect(second[2], 2, "another start", "n2")
            assert all(p.p.poll() is None for p in first), "the first start goes on"
        at = ["--rendezvous", f"file://{folder}"]
        with Start([([self.probe, *slow, *at], torchrun(r, 2, port, "n1")) for r in range(2)]) as first:
            first[0].wait_for("step 1")
            with Start([([self.probe, *at], torchrun(r, 2, port, "n1")) for r in range(2)]) as second:
                for r in second:
                    expect(r, 2, "has already arrived", "EVERGRAD_NONCE")
        with Start([([self.probe, *at], torchrun(r, 2, port, "n1")) for r in range(2)]) as again:  # what a killed start left
            for r in again:
                expect(r, 2, "nonce 'n1' was used before")
        with Start([([self.probe, *at], torchrun(r, 2, port, "n2")) for r in range(2)]) as fresh:
            for r in fresh:
                expect(r, 0, "sum 15")

    def test_garbage_on_the_port(self):
        port = free_port()
        slow = ["--steps", "30", "--step-ms", "20"]
        with Start([([self.probe, *slow], torchrun(r, 2, port)) for r in range(2)]) as ranks:
            ranks[0].wait_for("step 0")
            for text in (b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 5000, b"", b"\x00" * 8, os.urandom(3000)):
                with socket.create_connection(("127.0.0.1", port)) as s:
                    s.sendall(text)
            for r in ranks:
                expect(r, 0, "sum 90")

    # ---- runs shared out among processes ------------------------------------------------------------------------------

    def continual(self, out, *flags):
        return [self.evergrad, "continual", "--tasks", "2", "--classes-per-task", "2", "--epochs", "1", "--batch", "8", "--train-limit", "16",
                "--test-limit", "16", "--dim", "16", "--depth", "1", "--heads", "1", "--image-size", "8", "--patch", "4", "--threads", "1",
                "--probe", "none", "--methods", "adamw", "--out", out, *flags]

    def outcome(self, folder):
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["finished"]
        return [[r[k] for k in ("method", "seed", "task_accuracy", "diverged", "skipped_steps")] for r in summary["results"]]

    def test_farm_survives_kills(self):
        """Forty runs over two processes, of which one is killed three times and started again."""
        flags = ["--seeds", "1-40"]
        alone, shared = self.scratch / "alone", self.scratch / "shared"
        with Start([(self.continual(alone, *flags, "--jobs", "2"), {})]) as one:
            expect(one[0], 0, "adamw")
        commands = [(self.continual(shared, *flags, "--ranks-as-jobs", "--resume"), mpirun(r, 2, "")) for r in range(2)]
        with Start(commands) as ranks:
            for kill in range(3):
                victim, finished = self.random.randrange(2), 10 * kill + self.random.randrange(1, 9)
                while len(list((shared / "runs").glob("*/summary.json"))) < finished:
                    assert ranks[victim].p.poll() is None, ranks[victim].text()
                    time.sleep(0.01)
                time.sleep(0.1 * self.random.random())  # anywhere in a run
                ranks[victim].p.kill()
                assert ranks[victim].end(10) == -signal.SIGKILL, ranks[victim].text()
                ranks[victim] = Process(*commands[victim])
            expect(ranks[0], 0, "adamw", limit=240)
            expect(ranks[1], 0, limit=240)
            assert "adamw" not in "".join(ranks[1].out), "one process prints the table"
        assert self.outcome(shared) == self.outcome(alone)
        logs = {n.name: n.read_text() for n in (shared / "runs").glob("*.log")}
        assert len(logs) == 40 and not any("error" in t.lower() for t in logs.values())
        assert not (shared / "claims").exists()

    def test_farm_sweep_and_failure(self):
        out = self.scratch / "sweep"
        sweep = ["--seeds", "1,2", "--sweep", "lr=1e-3,3e-3", "--ranks-as-jobs"]
        with Start([(self.continual(out, *sweep), mpirun(r, 3, "")) for r in range(3)]) as ranks:
            expect(ranks[0], 0, "settings tried", "adamw")
            for r in ranks[1:]:
                expect(r, 0)
        assert len(self.outcome(out)) == 2
        with Start([(self.continual(out, *sweep), mpirun(0, 1, ""))]) as again:
            expect(again[0], 2, "already holds files", "--resume")
        with Start([(self.continual(out, *sweep[:-1], "--tasks", "3", "--ranks-as-jobs"), mpirun(1, 2, ""))]) as other:
            expect(other[0], 2, "tasks")  # rank 1 with other flags than the folder's
        with Start([(self.continual(self.scratch / "broken", "--seeds", "1,2", "--ranks-as-jobs"), mpirun(r, 2, "")) for r in range(2)]) as ranks:
            folder = self.scratch / "broken" / "runs"
            until = time.time() + 60
            while not folder.exists() and time.time() < until:
                time.sleep(0.002)
            for seed in (1, 2):  # a file where a run wants its folder
                try:
                    (folder / f"adamw-seed{seed}").write_text("in the way")
                except IsADirectoryError:
                    pass
            codes = {r.end(60) for r in ranks}
            assert codes <= {0, 1}, codes  # both say the same, whoever met the file

    # ---- faults -----------------------------------------------------------------------------------------------------

    def test_undisturbed(self):
        folder = self.folder()
        with self.run(3, folder=folder) as ranks:
            for r in ranks:
                expect(r, 0, "sum 30")
                assert not r.err, r.text()
        assert not list(folder.iterdir()), "no flight recorder is written when nothing failed"

    def strike(self, number, victim, named):
        """Sends a signal to one of three ranks at a random step; the others must end and say `named`."""
        folder = self.folder()
        with self.run(3, ["--steps", "100000"], folder=folder) as ranks:
            ranks[victim].wait_for(f"step {self.random.randrange(1, 25)}")
            ranks[victim].p.send_signal(number)
            for i, r in enumerate(ranks):
                if i == victim:
                    continue
                expect(r, LOST, named, "Its last collectives", "NOT COMPLETE", "--resume", limit=DEADLINE + SLACK)
                flight = self.flight(folder, i)
                assert flight["rank"] == i and flight["why"] and 0 < len(flight["collectives"]) <= 64, flight
                last = flight["collectives"][-1]
                assert last["name"] == "all_reduce f64" and last["bytes"] == 16 and last["completed_s"] is None, last
            if number == signal.SIGSTOP:  # it returns when all is over
                ranks[victim].p.send_signal(signal.SIGCONT)
                expect(ranks[victim], LOST, f"evergrad: rank {victim}: ", limit=DEADLINE + SLACK)

    def test_kill_each_rank(self):
        self.strike(signal.SIGKILL, 0, r"rank 0, which keeps the store at 127.0.0.1:\d+, has gone")
        self.strike(signal.SIGKILL, 1, r"rank 1 \(pid \d+ on host \S+\) ended without a word")
        self.strike(signal.SIGKILL, 2, r"rank 2 \(pid \d+ on host \S+\) ended without a word")

    def test_stop_each_rank(self):
        self.strike(signal.SIGSTOP, 0, r"rank 0.* (has not answered|has not been heard) for .*stopped|rank 0, which keeps the store .* has not answered")
        self.strike(signal.SIGSTOP, 1, r"rank 1 \(pid \d+ on host \S+\) has not been heard for [\d.]+ s; when last heard, .*(collective #\d+|no collective yet).* stopped")
        self.strike(signal.SIGSTOP, 2, r"rank 2 \(pid \d+ on host \S+\) has not been heard for [\d.]+ s; when last heard, .*(collective #\d+|no collective yet).* stopped")

    def test_a_late_rank(self):
        folder = self.folder()
        with self.run(3, special={1: ["--sleep", "2:600"]}, folder=folder) as ranks:
            for r in ranks:
                expect(r, LOST, r"rank \d has waited [\d.]+ s in collective #4 \(all_reduce f64, 16 bytes\), the deadline is 4.0 s",
                       r"rank 1 \(pid \d+ on host \S+\) is alive but late: it has not entered it; its last was collective #3", "--step-deadline",
                       limit=2 * DEADLINE + SLACK)
        assert {f.name for f in folder.iterdir()} == {f"flight-rank-{r}.json" for r in range(3)}, "all dump, also the late one"
        with self.run(2, special={1: ["--sleep", "2:1"]}) as ranks:  # a second late is no failure
            for r in ranks:
                expect(r, 0, "sum 15")

    def test_ranks_that_part(self):
        with self.run(3, special={2: ["--split", "2"]}) as ranks:
            for r in ranks:
                expect(r, LOST, "took different paths: .*(all_reduce f64.*[(]barrier|barrier.*[(]all_reduce f64)", limit=2 * DEADLINE + SLACK)

    def test_an_error_on_one_rank(self):
        with self.run(3, special={1: ["--throw", "2"]}) as ranks:
            expect(ranks[1], 1, "planted: the disk of this rank is full", "Its last collectives", limit=DEADLINE + SLACK)
            for r in (ranks[0], ranks[2]):
                expect(r, LOST, r"rank 1 \(pid \d+ on host \S+\) ended with an error; see its output", limit=DEADLINE + SLACK)

    def test_two_hosts_and_a_cut(self):
        """Two network namespaces with addresses of their own are two hosts; then their cable is pulled."""
        if not shutil.which("ip"):
            raise Unavailable("network namespaces need ip (Debian: iproute2)")
        hosts = [f"evergrad{os.getpid()}{c}" for c in "ab"]
        steps = [["netns", "add", h] for h in hosts] + [["link", "add", "eg0", "netns", hosts[0], "type", "veth", "peer", "name", "eg0", "netns", hosts[1]]]
        for i, h in enumerate(hosts):
            steps += [["-n", h, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "eg0"], ["-n", h, "link", "set", "eg0", "up"], ["-n", h, "link", "set", "lo", "up"]]
        try:
            for c in steps:
                done = subprocess.run(["ip", *c], capture_output=True, text=True)
                if done.returncode and c is steps[0] and "not permitted" in done.stderr:
                    raise Unavailable(f"network namespaces need root: ip {' '.join(c)}: {done.stderr.strip()}")
                assert not done.returncode, f"ip {' '.join(c)}: {done.stderr}"
            place = lambda r: torchrun(r, 3, 29500) | {"MASTER_ADDR": "10.77.0.1"}
            run = [self.probe, "--steps", "100000", "--step-deadline", DEADLINE]
            with Start([(["ip", "netns", "exec", hosts[r > 0], *run], place(r)) for r in range(3)]) as ranks:
                ranks[0].wait_for("step 3")
                subprocess.run(["ip", "-n", hosts[0], "link", "set", "eg0", "down"], check=True)
                expect(ranks[0], LOST, r"rank [12] \(pid \d+ on host \S+\) has not been heard for .*cut off", limit=DEADLINE + SLACK)
                for r in ranks[1:]:
                    expect(r, LOST, "rank 0, which keeps the store at 10.77.0.1:29500, has not answered for 2 s: .*cut off", limit=DEADLINE + SLACK)
        finally:
            for h in hosts:
                subprocess.run(["ip", "netns", "del", h], capture_output=True)

    def test_over_a_folder(self):
        """Without TCP nobody notices a closed connection; silence is enough."""
        folder, meet = self.folder(), self.folder()
        at = ["--rendezvous", f"file://{meet}", "--steps", "100000"]
        with self.run(3, at, folder=folder, rendezvous=lambda r, n, p: torchrun(r, n, p, "n1")) as ranks:
            ranks[0].wait_for("step 3")
            ranks[2].p.kill()
            for r in ranks[:2]:
                expect(r, LOST, r"rank 2 \(pid \d+ on host \S+\) has not been heard for", limit=DEADLINE + SLACK)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--source", type=pathlib.Path, required=True)
    p.add_argument("--build", type=pathlib.Path, required=True)
    p.add_argument("--only", default="", help="tests whose name holds this word")
    o = p.parse_args()
    failed = skipped = 0
    with tempfile.TemporaryDirectory(prefix="evergrad-ranks-") as scratch:
        tests = Tests(o.build.resolve(), pathlib.Path(scratch))
        names = [n for n in dir(tests) if n.startswith("test_") and (o.only in n if o.only else n not in SPECIAL)]
        for name in names:
            began = time.time()
            try:
                getattr(tests, name)()
                print(f"passed {name} ({time.time() - began:.1f} s)", flush=True)
            except Unavailable as e:
                print(f"skipped {name}: {e}", flush=True)
                skipped += 1
            except (AssertionError, OSError) as e:
                failed += 1
                print(f"FAILED {name}: {e}", flush=True)
    print(f"{len(names) - failed - skipped} passed, {failed} failed, {skipped} skipped")
    if failed or not names:
        return 1
    return 77 if skipped == len(names) else 0


if __name__ == "__main__":
    sys.exit(main())
