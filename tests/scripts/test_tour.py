"""The numbers of docs/tour.md are those that `evergrad explain --trace` prints.

Every line of a ```text block must be a line of the output. Every number with a decimal point in the prose must be one of
the output's. So the tour cannot go stale: whoever changes what a step computes, prints or draws changes the tour too.
"""
import argparse
import pathlib
import re
import subprocess

NUMBER = re.compile(r"(?<![\w.])-?\d+\.\d+(?:e[+-]\d+)?(?![\w.]*\d)")


def words(line):
    return " ".join(line.split())


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--source", type=pathlib.Path, required=True)
    p.add_argument("--build", type=pathlib.Path, required=True)
    o = p.parse_args()
    output = subprocess.run([o.build / "evergrad", "explain", "--trace"], capture_output=True, text=True, check=True).stdout
    lines = {words(line) for line in output.splitlines()}
    numbers = set(NUMBER.findall(output))
    text = (o.source / "docs" / "tour.md").read_text()
    wrong, compared = [], 0
    for block in re.finditer(r"^```text\n(.*?)^```", text, re.M | re.S):
        for line in block.group(1).splitlines():
            compared += bool(line.strip())
            if words(line) and words(line) not in lines:
                wrong.append(f"no line of the output: {line}")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    prose = re.sub(r"\]\([^)]*\)|arXiv:[\d.]+", "", prose)
    for number in NUMBER.findall(prose):
        compared += 1
        if number not in numbers:
            wrong.append(f"no number of the output: {number}")
    for line in wrong:
        print(line)
    if wrong or compared < 50:
        print(f"{len(wrong)} of {compared} lines and numbers of docs/tour.md are not what `evergrad explain --trace` prints:\n\n{output}")
        raise SystemExit(1)
    print(f"{compared} lines and numbers of docs/tour.md are what `evergrad explain --trace` prints")


if __name__ == "__main__":
    main()
