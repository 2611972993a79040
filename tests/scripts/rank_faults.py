"""What ranks of the real program do when one of them dies, stops, differs or cannot write: the fault matrix of test_ranks.py.

After each fault: nothing hangs, the output names the cause, and --resume ends at the bits of the undisturbed run. Moments are
random, from a seed; no speed is asserted, only that waiting ends.
"""
import contextlib
import os
import pathlib
import random
import resource
import signal
import socket
import subprocess
import tempfile
import time

from rank_hosts import Unavailable, two_hosts

DEADLINE = 4.0  # --step-deadline, seconds
SLACK = 25.0  # what a machine that is busy with other things may add
COMMAND = ("train --stream procedural --image-size 8 --patch 4 --dim 16 --depth 2 --heads 2 --precision fp32 --threads 1 --classes 3 "
           "--train-limit 60 --test-limit 30 --augment none --batch 12 --method arrow:window=4 --checkpoint-seconds 0.1 "
           f"--step-deadline {DEADLINE}")
EPOCHS = 200  # of five steps: a second or two, on an idle machine
MOMENTS = random.Random(20)


# Every rank writes its part of each checkpoint.
DIVIDED = COMMAND.replace("arrow:window=4", "adamw") + " --zero 1"


class Start:
    """One start under mpirun that goes on while the test looks."""

    def __init__(self, run, ranks, folder, mpirun, epochs=EPOCHS, extra=(), command=COMMAND):
        self.folder, self.ranks, self.epochs, self.command = folder, ranks, epochs, command
        args = [*mpirun, run.evergrad, *command.split(), "--epochs", str(epochs), "--out", str(folder), *extra]
        # A file, because a daemon of mpirun that is cut off lives on and would hold a pipe.
        self.said = tempfile.TemporaryFile(mode="w+")
        self.p = subprocess.Popen(args, env=run.environment, stdout=self.said, stderr=subprocess.STDOUT)

    def output(self):
        self.said.seek(0)
        return self.said.read()

    def pids(self):
        """Of the ranks, in order: each says its own in its environment."""
        found = {}
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]) != self.p.pid:
                    continue
                for word in (folder / "environ").read_bytes().split(b"\0"):
                    if word.startswith(b"OMPI_COMM_WORLD_RANK="):
                        found[int(word.split(b"=")[1])] = int(folder.name)
            except (OSError, IndexError):
                pass  # it has ended
        return [found[r] for r in sorted(found)]

    def until_saved(self):
        """Returns at a random epoch of the first half of the run, when there is a checkpoint."""
        limit, epoch = time.time() + 120, MOMENTS.randint(1, min(self.epochs, EPOCHS) // 2)
        log, saved = self.folder / "metrics.jsonl", lambda: list((self.folder / "checkpoints").glob("step-*.json"))
        while not log.exists() or log.read_bytes().count(b"\n") < epoch or not saved():
            assert self.p.poll() is None and time.time() < limit, f"the run did not get to epoch {epoch}:\n{self.output()}"
            time.sleep(0.005)

    def ranks_end(self, pids, limit=DEADLINE + SLACK):
        """They do what evergrad promises; mpirun may wait longer for a daemon that it cannot reach, and is then ended."""
        until = time.time() + limit
        while any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids):
            assert time.time() < until, f"ranks on this host hang beyond the deadline:\n{self.output()}"
            time.sleep(0.05)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.p.wait(timeout=SLACK)
        self.p.kill()

    def ends(self, codes, *words, limit=DEADLINE + SLACK):
        """codes: those that the launcher may pass on, None for any but 0. Every word is in the output, or one of a list."""
        try:
            code = self.p.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            for pid in [*self.pids(), self.p.pid]:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"the run hangs beyond the deadline:\n{self.output()}")
        assert code in codes if codes else code != 0, f"exit {code}\n{self.output()}"
        for word in words:
            choices = word if isinstance(word, list) else [word]
            assert any(w in self.output() for w in choices), f"nobody says {choices}:\n{self.output()}"


class Faults:
    def __init__(self, run, weights, mpirun):
        self.run, self.weights, self.mpirun = run, weights, mpirun
        self.undisturbed = {}

    def whole(self, s):
        """The bits at the end of the undisturbed run of three ranks."""
        command = f"{s.command} --epochs {s.epochs}"
        if command not in self.undisturbed:
            folder = self.run(command, 3, self.run.scratch / f"whole{len(self.undisturbed)}")
            self.undisturbed[command] = self.weights(folder)
        return self.undisturbed[command]

    def start(self, name, mpirun=None, **how):
        return Start(self.run, 3, self.run.scratch / name, mpirun or self.mpirun(3), **how)

    def came_to(self, s):
        assert self.weights(s.folder) == self.whole(s), f"{s.folder.name}: the run ends elsewhere than the undisturbed one"

    def goes_on(self, s):
        """The rest of a run that was disturbed has the bits of the one that was not."""
        self.run(f"{s.command} --epochs {s.epochs}", s.ranks, s.folder, ["--resume"])
        said = self.run.output
        self.came_to(s)
        return said

    def killed(self):
        for rank in range(3):
            s = self.start(f"killed{rank}")
            s.until_saved()
            pid = s.pids()[rank]
            os.kill(pid, signal.SIGKILL)
            s.ends(None, [f"rank {rank} (pid {pid} on host", f"rank {rank}, which keeps the store", f"process rank {rank} with PID"])
            self.goes_on(s)

    def stopped(self):
        for rank in [0, 2]:
            s = self.start(f"stopped{rank}")
            s.until_saved()
            os.kill(s.pids()[rank], signal.SIGSTOP)
            s.ends(None, [f"rank {rank} (pid"] if rank else ["which keeps the store", "rank 0 (pid"])
            assert list(s.folder.glob("flight-rank-*.json")), "no flight record was written"
        self.goes_on(s)

    def paused(self):
        """Late by less than the deadline is no fault."""
        s = self.start("paused")
        s.until_saved()
        pid = s.pids()[1]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(DEADLINE / 8)
        os.kill(pid, signal.SIGCONT)
        s.ends([0], limit=120)
        self.came_to(s)

    def asked_to_leave(self):
        s = self.start("preempted")
        s.until_saved()
        os.kill(s.pids()[1], signal.SIGUSR1)
        s.ends([138, 143], "continue with the same command and --resume")
        self.goes_on(s)

    def damaged(self):
        s = self.start("damaged")
        s.until_saved()
        os.kill(s.pids()[1], signal.SIGKILL)
        s.ends(None)
        files = sorted((s.folder / "checkpoints").glob("step-*.safetensors"), key=lambda p: int(p.stem.split("-")[1].split(".")[0]))
        os.truncate(files[-1], files[-1].stat().st_size // 2)
        said = self.goes_on(s)
        assert files[-1].name in said, f"nobody names the damaged file:\n{said}"

    def a_part_of_a_checkpoint(self):
        """Rank 1's file of the newest one is cut short: all go back to the one before. Then rank 2 alone may not write: all end."""
        s = self.start("parts", command=DIVIDED)
        s.until_saved()
        os.kill(s.pids()[2], signal.SIGKILL)
        s.ends(None)
        newest = max((s.folder / "checkpoints").glob("step-*.json"), key=lambda p: int(p.stem.split("-")[1]))
        part = newest.with_name(newest.stem + ".rank-1.safetensors")
        os.truncate(part, part.stat().st_size // 2)
        said = self.goes_on(s)
        assert said.count(part.name) == 1, f"the damaged part is to be named once:\n{said}"
        s = self.start("short", command=DIVIDED)
        s.until_saved()
        resource.prlimit(s.pids()[2], resource.RLIMIT_FSIZE, (1000, 1000))
        s.ends(None, "rank 2 of 3: ", "File too large", ".rank-2.safetensors")
        self.goes_on(s)
        left = sorted(p.name for p in (s.folder / "checkpoints").iterdir())
        assert len(left) == 8, f"two checkpoints are four files each: {left}"

    def another_config(self):
        half = [*self.mpirun(2)[:-1], "1"]
        args = [self.run.evergrad, *COMMAND.split(), "--out", str(self.run.scratch / "differ"), "--seed"]
        p = subprocess.run([*half, *args, "1", ":", "-n", "1", *args, "2"], env=self.run.environment, capture_output=True, text=True, timeout=120)
        said = p.stdout + p.stderr
        assert p.returncode != 0 and "config" in said and "rank  local  host" in said, f"exit {p.returncode}\n{said}"
        assert not (self.run.scratch / "differ").exists(), "a refused start has made its run folder"

    def second_start(self):
        s = self.start("twice", epochs=1000000)
        s.until_saved()
        self.start("twice", extra=["--resume"], epochs=1000000).ends([1], "another live process writes into")
        assert not list(s.folder.glob("flight-*")), "a refused start has written into another's folder"
        assert s.p.poll() is None, "a refused start has ended the other one"
        os.kill(s.pids()[0], signal.SIGTERM)
        s.ends([143], "continue with the same command and --resume")

    def full_disk(self):
        disk = self.run.scratch / "disk"
        disk.mkdir()
        mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "evergrad_test", str(disk)], capture_output=True, text=True)
        if mount.returncode != 0:
            raise Unavailable(f"mounting a small file system needs root: {mount.stderr.strip()}")
        try:
            s = self.start("disk/run")
            s.until_saved()
            filler = open(disk / "filler", "wb", buffering=0)
            limit = time.time() + SLACK
            while s.p.poll() is None and time.time() < limit:  # a checkpoint that is removed makes room for the next
                with contextlib.suppress(OSError):
                    filler.write(bytes(4096))
            s.ends(None, "No space left on device", "rank 0 of 3: ")
            filler.close()
            (disk / "filler").unlink()
            self.goes_on(s)
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)

    def several_hosts(self):
        """Over TCP between two hosts the same bits as on one; then their cable is pulled."""
        with two_hosts(self.run.scratch) as hosts:
            s = self.start("hosts", hosts.mpirun(address=None), epochs=30)
            s.ends([0], limit=120)
            self.came_to(s)
            s = self.start("cut", hosts.mpirun())
            s.until_saved()
            here = s.pids()
            assert len(here) == 2, here
            hosts.cut()
            s.ranks_end(here)
            s.ends(None, "on host evergrad-b) has not been heard")
            self.goes_on(s)

    def by_hand(self):
        """torchrun's variables lead up to the communicator; MPI was not started, and the message says how it would be."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        ranks = []
        for rank in range(2):
            place = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            args = [self.run.evergrad, *COMMAND.split(), "--out", str(self.run.scratch / "hand")]
            ranks.append(subprocess.Popen(args, env=self.run.environment | place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        for p in ranks:
            out, err = p.communicate(timeout=120)
            assert p.returncode == 2 and "all 2 ranks have met" in err and "mpirun -n 2" in err, f"exit {p.returncode}\n{out}{err}"
        assert not (self.run.scratch / "hand").exists()


SPECIAL = ["full_disk", "several_hosts"]  # need means that a machine may lack: tests of their own, so that these show as skipped


def check_faults(run, weights, mpirun, only=None):
    faults = Faults(run, weights, mpirun)
    for check in [getattr(faults, only)] if only else [faults.another_config, faults.by_hand, faults.killed, faults.stopped, faults.paused, faults.asked_to_leave, faults.damaged, faults.a_part_of_a_checkpoint,
                  faults.second_start]:
        start = time.time()
        check()
        print(f"  {check.__name__}: good, {time.time() - start:.0f} s", flush=True)
