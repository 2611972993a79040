"""The gdb session of docs/debug-a-kernel.md: every source line that it quotes stands in that file at that number, and gdb, given the
same commands, says the same. Run by test_readme.py.

A debug build of everything would take minutes of CI. Without optimisation and with its variables is compiled here what the session looks
into, one kernel file, and linked into the test program in place of the fast one.
"""
import os
import re
import shlex
import shutil
import subprocess

KERNEL = "cuda/kernels/attention_fwd.cu"
TEST = "tests/test_kernels_emulated"


def session(text):
    """[(command, [expected line])] of the indented block that begins with a (gdb) prompt, and the program's own arguments."""
    block = re.search(r"^    \(gdb\) .*?(?=^\S)", text, re.M | re.S).group(0)
    found = []
    for line in block.splitlines():
        line = line[4:]
        if line.startswith("(gdb) "):
            found.append((line[6:], []))
        elif line.strip():
            found[-1][1].append(line)
    program = re.search(r"^gdb -q --args \S*test_kernels_emulated (.*)$", text, re.M).group(1)
    return found, shlex.split(program)


def check_quoted_lines(found, source):
    """Raises AssertionError for a quoted line that is not where the page says."""
    lines = (source / KERNEL).read_text().splitlines()
    quoted = [re.fullmatch(r"(\d+)\t(.*)", line) for _, expected in found for line in expected]
    quoted = [q for q in quoted if q]
    assert quoted, "the session quotes no source line"
    for q in quoted:
        number, said = int(q.group(1)), q.group(2)
        there = lines[number - 1] if number <= len(lines) else "nothing"
        assert said == there, f"{KERNEL}:{number} is not {said!r} but {there!r}"
    return len(quoted)


def pattern(line):
    """Of an expected line: three dots stand for anything."""
    return ".*".join(re.escape(part) for part in re.split(r" ?\.\.\. ?", line))


def check_output(found, said):
    """Raises AssertionError unless what the page shows comes in gdb's output, in its order."""
    at = 0
    for command, expected in found:
        for line in expected:
            match = re.compile(f"^{pattern(line)}$", re.M).search(said, at)
            assert match, f"after (gdb) {command}: gdb does not say {line!r}; it says\n{said[at:][:3000]}"
            at = match.end()


def build_with_variables(build, folder):
    """The test program whose kernel has its lines and variables."""
    def recipe(target):
        done = subprocess.run(["ninja", "-C", build, "-t", "commands", target], capture_output=True, text=True, check=True)
        return done.stdout.strip().splitlines()[-1]
    kernel_object = folder / "attention_fwd.o"
    words = shlex.split(recipe(f"cuda/CMakeFiles/evergrad_emulated_kernels.dir/{KERNEL.removeprefix('cuda/')}.o"))
    out = words.index("-o")
    words = words[:out] + ["-o", str(kernel_object)] + words[out + 2:] + ["-O0", "-g", "-UNDEBUG"]  # the last ones win
    for flag in ("-MD", "-MT", "-MF"):  # ninja's own bookkeeping
        if flag in words:
            del words[words.index(flag):words.index(flag) + (1 if flag == "-MD" else 2)]
    subprocess.run(words, cwd=build, check=True)
    program = folder / "test_kernels_emulated"
    # Its definitions are found before the library's, whose object then stays out.
    subprocess.run(recipe(TEST).replace(f" -o {TEST} ", f" {kernel_object} -o {program} ", 1), cwd=build, shell=True, check=True)
    return program


def check_page(source, build, scratch):
    """Returns what was done, in words."""
    found, arguments = session((source / "docs" / "debug-a-kernel.md").read_text())
    done = f"{check_quoted_lines(found, source)} quoted lines stand where the page says"
    lacking = [tool for tool in ("gdb", "ninja") if not shutil.which(tool)]
    if lacking or not (build / TEST).exists() or not (build / "build.ninja").exists():
        return f"{done}; the session itself was left out: no {' and no '.join(lacking) or 'test_kernels_emulated built by ninja'}"
    folder = scratch / "gdb"
    folder.mkdir()
    program = build_with_variables(build, folder)
    commands = [word for command, _ in found for word in ("-ex", command)]
    ran = subprocess.run(["gdb", "-q", "-nx", "-batch", *commands, "--args", program, *arguments], capture_output=True, text=True, timeout=200,
                         env={**os.environ, "DEBUGINFOD_URLS": ""})
    if "ptrace: Operation not permitted" in ran.stderr or "Could not trace the inferior" in ran.stderr:
        return f"{done}; the session itself was left out: no process may be traced here"
    check_output(found, ran.stdout)
    return f"{done}, and gdb says the same in {len(found)} commands"
