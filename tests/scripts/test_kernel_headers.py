"""Every kernel file says what it computes and at what cost: Math, Traffic, Work, Mapping and Limits stand in its first comment."""
import argparse
import pathlib
import re

WORDS = ["Math", "Traffic", "Work", "Mapping", "Limits"]


def missing(text):
    """The words that no line of the comment at the top of a file begins with, followed by what there is to say."""
    header = re.match(r"(?://.*\n)*", text).group()
    return [word for word in WORDS if not re.search(rf"^// {word} +\S", header, re.MULTILINE)]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--source", type=pathlib.Path, required=True)
    p.add_argument("--build")
    source = p.parse_args().source
    whole = "// a.cu - a kernel.\n//\n" + "".join(f"// {word:8} something\n" for word in WORDS)
    assert missing(whole) == []
    for word in WORDS:
        for planted in ("", f"// {word}\n", f"\n// {word:8} too late\n"):
            text = whole.replace(f"// {word:8} something\n", "") + planted
            assert missing(text) == [word], (word, planted)
    files = sorted((source / "cuda/kernels").glob("*.cu"))
    assert len(files) > 20, f"only {len(files)} kernel files in {source / 'cuda/kernels'}"
    wrong = [f"{file.relative_to(source)}: its header lacks {', '.join(words)}" for file in files if (words := missing(file.read_text()))]
    assert not wrong, "\n".join(wrong)
    print(f"the headers of {len(files)} kernel files name {', '.join(WORDS)}")


if __name__ == "__main__":
    main()
