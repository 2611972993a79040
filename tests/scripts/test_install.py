"""Installs this build into a scratch folder and uses it as an outsider would: an empty folder, the three examples, a
CMakeLists.txt that knows find_package(evergrad) and nothing else; then the plugin through the installed binary, the
manual pages, the completion of the shells, and every C++ block of docs/library.md.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile


def run(command, expect=0, **kwargs):
    """Output of a command that must end with code `expect`."""
    command = [str(c) for c in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, **kwargs)
    if done.returncode != expect:
        raise SystemExit(f"{' '.join(command)}\nexit {done.returncode}, expected {expect}\n{done.stdout[-4000:]}")
    return done.stdout


def holds(text, *parts):
    for part in parts:
        if part not in text:
            raise SystemExit(f"expected '{part}' in:\n{text[-4000:]}")


def cached(build, name):
    found = re.search(rf"^{name}:\w+=(.*)$", (build / "CMakeCache.txt").read_text(), re.M)
    return found.group(1) if found else ""


def build_project(folder, prefix, build):
    """Configures and builds a folder that has a CMakeLists.txt, with the compiler of the build under test."""
    run(["cmake", "-S", folder, "-B", folder / "build", "-G", "Ninja", f"-DCMAKE_PREFIX_PATH={prefix}",
         f"-DCMAKE_CXX_COMPILER={cached(build, 'CMAKE_CXX_COMPILER')}", f"-DCMAKE_CXX_COMPILER_LAUNCHER={cached(build, 'EVERGRAD_CCACHE')}"])
    run(["cmake", "--build", folder / "build", "-j2"])
    return folder / "build"


def examples(prefix, scratch, build):
    folder = scratch / "outside"
    shutil.copytree(prefix / "share/evergrad/examples", folder)
    assert sorted(p.name for p in folder.iterdir()) == ["CMakeLists.txt", "autograd.cpp", "my_method.cpp", "train_vit.cpp"]
    built = build_project(folder, prefix, build)
    holds(run([built / "autograd"]), "(passed)", "gradient 0.000 0.000 0.100 0.667 0.233 0.000")
    out = run([built / "train_vit", "1"])
    accuracy = float(re.search(r"epoch 1/1: train loss \S+, test accuracy ([\d.]+)%", out).group(1))
    if accuracy < 50:  # of ten classes; 79 where it was written
        raise SystemExit(f"train_vit learned nothing in its first epoch:\n{out}")
    holds(run([built / "train_vit", "1", "/nowhere"], expect=1), "train_vit: ", "/nowhere")
    holds(run([built / "train_vit", "many"], expect=1), "use: train_vit")
    return built


def plugin(prefix, built, scratch):
    """A run with the method, a second one that resumes it; then everything that may be wrong with a plugin."""
    binary, library = prefix / "bin/evergrad", built / "libmy_method.so"
    small = "--stream procedural --tasks 2 --epochs 1 --train-limit 24 --test-limit 12 --batch 12 --dim 16 --depth 1 --heads 1 --threads 1".split()
    outs = [scratch / "run", scratch / "again"]
    for out in outs:
        holds(run([binary, "continual", "--plugin", library, "--methods", "adamw,my-method:rate=0.5,sgd+my-method", "--out", out] + small),
              "my-method:rate=0.5", "sgd+my-method")
    logs = [re.sub(r'"(seconds|images_per_second|wait_seconds)":[^,}]*', "", (out / "metrics.jsonl").read_text()) for out in outs]
    assert logs[0] == logs[1], "the same seed gave another log"
    holds((outs[0] / "config.toml").read_text(), f'plugin = "{library.resolve()}"', "pulls weights back by 0.5 a step")
    # The run folder knows its plugin: these need no flag.
    run([binary, "diagnose", outs[0], "--quick"])
    holds(run([binary, "continual", "--list-methods", "--plugin", library]), "my-method", "Pulls the last blocks")
    holds(run([binary, "train", "--plugin", library, "--method", "my-method", "--out", scratch / "train"] +
              "--epochs 1 --train-limit 24 --test-limit 12 --batch 12 --dim 16 --depth 1 --heads 1 --threads 1".split()), "test accuracy")

    def refused(files, methods, code, *parts):
        holds(run([binary, "continual", "--plugin", files, "--methods", methods, "--out", scratch / "refused"] + small, expect=code), *parts)
        assert not (scratch / "refused").exists(), f"--plugin {files} was refused and left a folder"

    refused(library, "my-method:rate=2", 2, "rate", "my-method")
    refused(library, "my-method:speed=2", 2, "speed", "rate")
    refused(scratch / "absent.so", "my-method", 1, "absent.so", "no such file")
    refused(scratch, "my-method", 1, "no such file")
    broken = scratch / "broken.so"
    whole = library.read_bytes()
    for content in (b"", b"not a library", whole[:40], whole[:4096], whole[:len(whole) // 2]):
        broken.write_bytes(content)
        refused(broken, "my-method", 1, "broken.so", "not a complete shared object")
    # The tag is plain text in the file: one of another version.
    assert whole.count(b"evergrad 0.") == 1, "the tag does not stand once in the plugin"
    broken.write_bytes(whole.replace(b"evergrad 0.", b"evergrad 9."))
    refused(broken, "my-method", 1, "another build", "evergrad 9.", "evergrad 0.", "Compile it again")
    copy = scratch / "copy.so"
    shutil.copy(library, copy)
    refused(f"{library},{copy}", "my-method", 2, "my-method", "already")


def shells(prefix, scratch):
    binary = prefix / "bin/evergrad"
    pages = {p.name: p.read_text() for p in (prefix / "share/man/man1").iterdir()}
    helps = run([binary, "--help"])
    commands = re.findall(r"^  (\w+) ", helps[helps.index("Subcommands:"):], re.M)
    assert len(commands) >= 8, helps
    for command in commands:
        page = pages[f"evergrad-{command}.1"]
        for flag in set(re.findall(r"^ +(--[a-z-]+)", run([binary, command, "--help"]), re.M)):
            holds(page, "\\fB\\&" + flag.replace("-", "\\-") + "\\fR")
    if shutil.which("groff"):
        complaints = run(["groff", "-man", "-ww", "-z", "-Tutf8"] + [prefix / "share/man/man1" / name for name in sorted(pages)])
        if complaints:
            raise SystemExit(f"groff complains about the manual pages:\n{complaints}")

    script = prefix / "share/bash-completion/completions/evergrad"

    # line as typed so far: what is offered, exactly or (a set) among others; bash offers the whole word
    expected = {
        "evergrad ": {"continual", "train", "completion"},
        "evergrad contin": ["continual"],
        "evergrad continual --plug": ["--plugin"],
        "evergrad continual --gelu ": ["erf", "tanh"],
        "evergrad continual --methods adamw,shrink": ["adamw,shrink-perturb"],
        "evergrad continual --methods sgd+na": ["sgd+nap"],
        "evergrad continual --recipe proc": {"procedural-small"},
        "evergrad data fet": ["fetch"],
        "evergrad data fetch --d": {"--dir"},
        "evergrad completion z": ["zsh"],
        "evergrad train --data ": [],  # nothing of its own: bash completes files
    }
    program = f"source {script}\n"
    for line in expected:
        words = " ".join(word or '""' for word in line.split(" "))
        program += f'COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _evergrad; echo "${{COMPREPLY[*]}}"\n'
    for (line, offer), got in zip(expected.items(), run(["bash", "-c", program]).splitlines(), strict=True):
        got = got.split()
        if (not offer <= set(got)) if isinstance(offer, set) else offer != got:
            raise SystemExit(f"'{line}' completes to {got}, expected {offer}")
    zsh(prefix / "share/zsh/site-functions", expected)


def zsh(folder, expected):
    """What a zsh in a terminal offers and inserts."""
    if not shutil.which("zsh"):
        print("left out: completion in zsh (Debian: zsh)")
        return
    lines = list(expected) + ["evergrad continual --gelu=t", "evergrad continual --methods=sgd+l2i", "evergrad predict --che"]
    out = run(["zsh", "-f", pathlib.Path(__file__).with_name("complete_in.zsh"), folder] + lines, cwd=folder).splitlines()
    for line, got, became in zip(lines, out[::2], out[1::2], strict=True):
        offer = expected.get(line, set())
        if line.endswith("--data "):  # zsh completes files itself: the only one here
            offer = ["_evergrad"]
        offer = type(offer)(re.split("[,+]", word)[-1] for word in offer)  # zsh offers the last name of a list
        got = got.split()
        if (not offer <= set(got)) if isinstance(offer, set) else sorted(offer) != sorted(got):
            raise SystemExit(f"zsh: '{line}' completes to {got}, expected {offer}")
        if len(got) == 1 and not became.rstrip(" =").endswith(got[0]):
            raise SystemExit(f"zsh: '{line}' became '{became}', expected {got[0]} at its end")
        if line not in expected and len(got) != 1:
            raise SystemExit(f"zsh: '{line}' completes to {got}, expected one word")


def snippets(source, prefix, scratch, build):
    """Every ```cpp block of docs/library.md compiles and runs as it stands; a ```cmake block in front of it is its project."""
    text = (source / "docs/library.md").read_text()
    project = re.search(r"^```cmake\n(.*?)^```", text, re.M | re.S).group(1)
    blocks = re.findall(r"^```cpp\n(.*?)^```", text, re.M | re.S)
    assert blocks, "docs/library.md shows no C++"
    programs = [b for b in blocks if "int main" in b]
    for i, block in enumerate(programs):
        folder = scratch / f"snippet{i}"
        folder.mkdir()
        (folder / "CMakeLists.txt").write_text(project)
        (folder / "main.cpp").write_text(block)
        run([build_project(folder, prefix, build) / "mine"])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--source", type=pathlib.Path, required=True)
    p.add_argument("--build", type=pathlib.Path, required=True)
    o = p.parse_args()
    if cached(o.build, "EVERGRAD_SANITIZE"):
        print("skipped: the installed package is tried with the release build")
        sys.exit(77)
    scratch = pathlib.Path(tempfile.mkdtemp(prefix="evergrad-install-")).resolve()
    try:
        prefix = scratch / "prefix"
        run(["cmake", "--install", o.build, "--prefix", prefix])
        built = examples(prefix, scratch, o.build)
        plugin(prefix, built, scratch)
        shells(prefix, scratch)
        snippets(o.source, prefix, scratch, o.build)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print("installed, and used from outside")


if __name__ == "__main__":
    main()
