"""Two hosts on one machine: two network namespaces with addresses and names of their own, and Open MPI with a launch agent that
enters the other one where ssh would go to another host. Needs root and ip."""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess


class Unavailable(Exception):
    """This machine lacks what a test needs; the message says what. The test is skipped, not passed."""


class Hosts:
    def __init__(self, scratch):
        self.names = [f"evergrad{os.getpid()}{c}" for c in "ab"]
        self.agent = pathlib.Path(scratch) / "agent"

    def start(self):
        if not shutil.which("ip"):
            raise Unavailable("network namespaces need ip (Debian: iproute2)")
        a, b = self.names
        steps = [["netns", "add", a], ["netns", "add", b], ["link", "add", "eg0", "netns", a, "type", "veth", "peer", "name", "eg0", "netns", b]]
        for i, h in enumerate(self.names):
            steps += [["-n", h, "addr", "add", f"10.78.0.{i + 1}/24", "dev", "eg0"], ["-n", h, "link", "set", "eg0", "up"],
                      ["-n", h, "link", "set", "lo", "up"]]
        for s in steps:
            done = subprocess.run(["ip", *s], capture_output=True, text=True)
            if done.returncode and s is steps[0] and "not permitted" in done.stderr:
                raise Unavailable(f"network namespaces need root: ip {' '.join(s)}: {done.stderr.strip()}")
            assert not done.returncode, f"ip {' '.join(s)}: {done.stderr}"
        for h in self.names:  # see mpirun(); where nobody may set this, mpirun is ended by the test
            subprocess.run(["ip", "netns", "exec", h, "sh", "-c", "echo 4 > /proc/sys/net/ipv4/tcp_retries2"], capture_output=True)
        self.agent.write_text(f'#!/bin/sh\nshift\nexec ip netns exec {b} unshare -u sh -c "hostname evergrad-b; $*"\n')
        self.agent.chmod(0o755)

    def cut(self):
        subprocess.run(["ip", "-n", self.names[0], "link", "set", "eg0", "down"], check=True)

    def stop(self):
        for h in self.names if shutil.which("ip") else []:
            for pid in subprocess.run(["ip", "netns", "pids", h], capture_output=True, text=True).stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)  # mpirun's daemon on a host that is cut off
            subprocess.run(["ip", "netns", "del", h], capture_output=True)

    def mpirun(self, address="10.78.0.1"):
        """Two ranks here, one there; address: of rank 0, None: MPI is to tell it. mpirun itself takes minutes to notice a cut cable unless
        it is told otherwise: by keepalive probes when its connection is idle, by the kernel's tcp_retries2 when words to its daemon are under way, which hold the probes back."""
        settings = {"plm_rsh_agent": self.agent, "btl": "tcp,self", "btl_tcp_if_include": "eg0", "oob_tcp_if_include": "eg0",
                    "oob_tcp_keepalive_time": 2, "oob_tcp_keepalive_intvl": 1, "oob_tcp_keepalive_probes": 2}
        words = [str(w) for name, value in settings.items() for w in ("--mca", name, value)]
        told = ["-x", f"MASTER_ADDR={address}", "-x", "MASTER_PORT=29500"] if address else []
        return ["ip", "netns", "exec", self.names[0], "mpirun", "--bind-to", "none", "--host", "10.78.0.1:2,10.78.0.2:1", *words, *told, "-n", "3"]


@contextlib.contextmanager
def two_hosts(scratch):
    hosts = Hosts(scratch)
    try:
        hosts.start()
        yield hosts
    finally:
        hosts.stop()
