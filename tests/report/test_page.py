#!/usr/bin/env python3
"""Opens a report page in headless Chromium and checks that it works.

usage: test_page.py FILE.html [--shots DIR]

Drives the browser over --remote-debugging-pipe: JSON messages that end in NUL, to its file descriptor 3, from its 4.
Exits 0 when all is well, 1 with a line for each failure, 77 when there is no Chromium. --shots writes screenshots
(light, dark, phone) and the printed page as PDF. What a page lacks (curves, diagnosis, ...) is not asked for.
"""

import argparse
import base64
import csv
import fcntl
import io
import json
import os
import pathlib
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
import xml.dom.minidom

BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
WAIT = 120  # seconds for one answer


class Browser:
    """One headless browser with one page."""

    def __init__(self, program, profile):
        down_read, self.down = os.pipe()
        self.up, up_write = os.pipe()
        # Out of the way of 3 and 4, which the child needs.
        child = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (down_read, up_write)]

        def place():
            os.dup2(child[0], 3)
            os.dup2(child[1], 4)

        self.process = subprocess.Popen(
            [
                program,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--hide-scrollbars",
                "--remote-debugging-pipe",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            preexec_fn=place,
            pass_fds=(3, 4),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for fd in (down_read, up_write, *child):
            os.close(fd)
        self.buffer, self.last_id, self.session, self.events = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def read(self, until):
        """The next message."""
        while b"\0" not in self.buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.up], [], [], left)[0]:
                raise TimeoutError(f"the browser does not answer within {WAIT} s")
            piece = os.read(self.up, 1 << 20)
            if not piece:
                raise EOFError("the browser went away")
            self.buffer += piece
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **params):
        self.last_id += 1
        message = {"id": self.last_id, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.down, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + WAIT
        while True:
            answer = self.read(until)
            if answer.get("id") == self.last_id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def open(self, url):
        self.events.clear()
        self.call("Page.navigate", url=url)
        until = time.monotonic() + WAIT
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self.read(until))

    def js(self, expression):
        """The value of an expression, promises awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", "exception"))
        return answer["result"].get("value")

    def settle(self):
        """Lets the page draw what it put off to the next frames."""
        self.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 20))))")

    def screen(self, width, height, dark=False, phone=False):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.settle()
        self.settle()

    def shot(self, path, most=15000):
        size = self.js("[document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": min(size[1], most), "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def complaints(self):
        """Errors in the console, exceptions, and requests that would leave the page."""
        found = []
        for e in self.events:
            p = e.get("params", {})
            if e.get("method") == "Runtime.exceptionThrown":
                d = p["exceptionDetails"]
                found.append("exception: " + d.get("exception", {}).get("description", d.get("text", "")))
            elif e.get("method") == "Runtime.consoleAPICalled" and p["type"] in ("error", "assert", "warning"):
                found.append("console: " + " ".join(str(a.get("value", a.get("description", ""))) for a in p["args"]))
            elif e.get("method") == "Log.entryAdded" and p["entry"]["level"] in ("error", "warning"):
                found.append("log: " + p["entry"]["text"])
            elif e.get("method") == "Network.requestWillBeSent" and not p["request"]["url"].startswith(
                ("file:", "data:", "blob:")
            ):
                found.append("request: " + p["request"]["url"])
        return found

    def close(self):
        self.session = None
        try:
            self.call("Browser.close")
        except (EOFError, OSError, RuntimeError, TimeoutError):
            pass
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Checks:
    def __init__(self):
        self.failures, self.count = [], 0

    def that(self, holds, what):
        self.count += 1
        if not holds:
            self.failures.append(what)
            print("FAIL", what)

    def equal(self, got, wanted, what):
        self.that(got == wanted, f"{what}: {got!r} instead of {wanted!r}")


# Helpers inside the page.
TOOLS = """
window.probe = {
  count: (s) => document.querySelectorAll(s).length,
  html: (s) => (document.querySelector(s) || {}).innerHTML || "",
  methods: (s) => [...new Set([...document.querySelectorAll(s)].map((n) => n.getAttribute("data-method")))],
  set: (s, value, event) => {
    const node = document.querySelector(s);
    node.value = value;
    node.dispatchEvent(new Event(event, {bubbles: true}));
  },
  choose: (s, value) => probe.set(s, value, "change"),
  slide: (s, value) => probe.set(s, value, "input"),
  press: (s, text) => [...document.querySelectorAll(s)].find((n) => n.textContent === text).click(),
  leaves: () => [...document.querySelectorAll("main *")].filter((n) => !n.children.length).map((n) => n.textContent),
  nameless: () => [...document.querySelectorAll("button, select, input")]
    .filter((n) => !n.textContent.trim() && !n.closest("label") && !n.getAttribute("aria-label")).length,
  torn: () => [...document.querySelectorAll("svg path")]
    .filter((n) => /NaN|undefined/.test(n.getAttribute("d") || "")).length,
  drawn: (svg) => new Promise((done) => {
    const image = new Image();
    image.onload = () => done(image.width * image.height);
    image.onerror = () => done(0);
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(svg);
  }),
  wide: () => [...document.querySelectorAll("body *")].filter((n) => n.getBoundingClientRect().right > innerWidth + 1
    && !n.closest(".scroll, .bar, #tip, .probe, svg")).map((n) => n.tagName + "." + n.className).slice(0, 5),
};
"""


def check_structure(b, t, data):
    t.equal(b.js("document.title.includes(%s)" % json.dumps(data["title"])), True, "title names the runs")
    t.equal(b.js("probe.count('.group')"), len(data["groups"]), "sections of groups")
    for i, group in enumerate(data["groups"]):
        lists = [
            s.get("measures", {}).get("task_accuracy") for m in group.get("methods", []) for s in m.get("seeds", [])
        ]
        if any(lists):
            t.that(b.js(f"probe.count('#g{i}-accuracy svg .line')") >= 1, f"group {i}: lines of accuracy")
            t.that(b.js(f"probe.count('#g{i}-aat svg .mean')") >= 1, f"group {i}: means of methods")
        t.equal(b.js(f"probe.count('#group-{i} .chip')"), len(group.get("methods", [])), f"group {i}: chips")
        t.that(
            len(b.js(f"document.querySelector('#group-{i} .lead').textContent")) > 20, f"group {i}: a summary in words"
        )
        seeds = [s for m in group.get("methods", []) for s in m.get("seeds", [])]
        for part, figure in (("curves", "curves"), ("spectra", "spectra")):
            if any(s.get(part) for s in seeds):
                t.that(b.js(f"probe.count('#g{i}-{figure} svg .line')") >= 1, f"group {i}: {part}")
        if any((s.get("diagnosis") or {}).get("blocks") for s in seeds):
            t.that(b.js(f"probe.count('#g{i}-heat svg image')") >= 1, f"group {i}: heat maps")
            t.that(b.js(f"probe.count('#g{i}-profile svg .line')") >= 1, f"group {i}: profile over blocks")
            t.that(b.js(f"probe.count('#g{i}-modules svg .line')") >= 6, f"group {i}: modules")
        if any(s.get("maps") for s in seeds) and group.get("samples"):
            t.that(b.js(f"probe.count('#g{i}-maps svg .overlay')") >= 1, f"group {i}: attention maps")
        for notice in group.get("notices", []):
            t.that(
                notice in b.js(f"document.querySelector('#group-{i} .notice').textContent"),
                f"group {i}: notice {notice!r}",
            )
    for problem in data.get("problems", []):
        t.that(
            problem in b.js("document.querySelector('.notice').textContent"),
            f"problem {problem!r} is shown as it stands",
        )
    wrong = [s for s in b.js("probe.leaves()") if re.search(r"undefined|NaN|\[object", s)]
    t.equal(wrong[:3], [], "no undefined or NaN in the text")
    t.equal(b.js("probe.torn()"), 0, "paths without NaN")
    ids = "[...document.querySelectorAll('[id]')].map((n) => n.id)"
    t.equal(
        b.js(f"{ids}.filter((id, i, all) => all.indexOf(id) !== i).filter((id) => !id.startsWith('ramp'))"),
        [],
        "ids are unique",
    )
    t.equal(b.js("probe.nameless()"), 0, "every control has a name")


def check_methods(b, t, group):
    """A chip hides its line and its bar, brings them back, and isolates on a double click."""
    names = [m["name"] for m in group.get("methods", [])]
    if len(names) < 2:
        return
    name, lines, rows = names[0], "#g0-accuracy svg .series", "#g0-aat svg .row"
    chip = f"document.querySelector('[data-chip={json.dumps(name)}]')"
    t.that(
        name in b.js(f"probe.methods('{lines}')") and name in b.js(f"probe.methods('{rows}')"), "first method is drawn"
    )
    shown = b.js(f"probe.methods('{rows}')")  # a method without a finished run has no row
    b.js(f"{chip}.click()")
    b.settle()
    t.equal(b.js(f"{chip}.getAttribute('aria-pressed')"), "false", "chip is switched off")
    t.that(name not in b.js(f"probe.methods('{lines}')"), "a chip hides its line")
    t.that(name not in b.js(f"probe.methods('{rows}')"), "a chip hides its bar")
    b.js(f"{chip}.click()")
    b.settle()
    t.that(name in b.js(f"probe.methods('{lines}')"), "a second click brings the line back")
    b.js(f"{chip}.dispatchEvent(new MouseEvent('dblclick'))")
    b.settle()
    t.equal(b.js(f"probe.methods('{rows}')"), [name], "a double click isolates")
    b.js("document.querySelector('#group-0 .bar .link').click()")
    b.settle()
    t.equal(b.js(f"probe.methods('{rows}')"), shown, "all are shown again")


def check_controls(b, t):
    select_box = "#g0-accuracy select"
    options = b.js(f"[...document.querySelectorAll('{select_box} option')].map((o) => o.value)") or []
    line = "document.querySelector('#g0-accuracy svg .line').getAttribute('d')"
    for value in options[1:]:
        before = b.js(line)
        b.js(f"probe.choose('{select_box}', '{value}')")
        b.settle()
        t.that(b.js(line) != before, f"the chart changes with the measure {value}")
    if options:
        b.js(f"probe.choose('{select_box}', '{options[0]}')")
        b.settle()
    bands = b.js("probe.count('#g0-accuracy svg .band')")
    if bands:
        b.js("probe.press('#g0-accuracy .segments button', 'Seeds')")
        b.settle()
        t.that(
            b.js("probe.count('#g0-accuracy svg .thin')") > 0 and b.js("probe.count('#g0-accuracy svg .band')") == 0,
            "single seeds take the place of bands",
        )
        b.js("probe.press('#g0-accuracy .segments button', '95%')")
        b.settle()
    if b.js("probe.count('#g0-heat svg')"):
        check_diagnosis(b, t)
    if b.js("probe.count('#g0-curves svg')"):
        before = b.js("probe.html('#g0-curves .plot')")
        b.js("probe.slide('#g0-curves input[type=range]', 2)")
        b.settle()
        after = b.js("probe.html('#g0-curves .plot')")
        t.that(before != after, "the slider changes the learning curves")
    sort = "#g0-summary thead th:nth-child(3)"
    if b.js(f"probe.count('{sort}')"):
        before = b.js(f"document.querySelector('{sort}').getAttribute('aria-sort')")
        b.js(f"document.querySelector('{sort} button').click()")
        t.that(
            b.js(f"document.querySelector('{sort}').getAttribute('aria-sort')") != before, "a click on a column sorts"
        )
    if b.js("probe.count('#g0-accuracy svg rect.hover')"):
        b.js("document.querySelector('#g0-accuracy svg rect.hover').focus()")
        b.js("document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))")
        t.that("Task 1" in b.js("document.getElementById('tip').textContent"), "the arrow keys show values")
        b.js("document.activeElement.blur()")
        t.equal(b.js("document.getElementById('tip').hidden"), True, "the values go away")


def check_diagnosis(b, t):
    section = "#g0-diagnosis"
    before, profile = b.js("probe.html('#g0-heat svg')"), b.js("probe.html('#g0-profile svg')")
    b.js(f"probe.slide('{section} input[type=range]', 0)")
    b.settle()
    after = b.js("probe.html('#g0-heat svg')")
    moved = b.js("Number(document.querySelector('#g0-diagnosis input[type=range]').max) > 0")
    t.that(before != after or not moved, "the slider over tasks changes the heat map")
    t.that(profile != b.js("probe.html('#g0-profile svg')") or not moved, "the slider over tasks changes the profile")
    options = b.js(f"[...document.querySelectorAll('{section} select option')].map((o) => o.value)")
    picture = "document.querySelector('#g0-heat svg image').getAttribute('href')"
    before = b.js(picture)
    other = b.js(f"document.querySelector('{section} select').value")
    for different in [o for o in options if o != other][:5]:
        b.js(f"probe.choose('{section} select', '{different}')")
        b.settle()
        if b.js(picture) != before:
            break
    t.that(b.js(picture) != before or len(options) < 2, "another quantity changes the heat map")
    b.js(f"probe.choose('{section} select', '{other}')")
    b.settle()
    explained = b.js("[...document.querySelectorAll('#g0-diagnosis > .note')].map((n) => n.textContent.length)[0]")
    t.that((explained or 0) > 20, "the quantity is explained")


def check_exports(b, t):
    """Everything that can be saved is well-formed and stands on its own."""
    for name in b.js("report.figures()"):
        svg = b.js(f"report.svg('{name}')")
        try:
            root = xml.dom.minidom.parseString(svg).documentElement
            t.equal(root.tagName, "svg", f"{name}: SVG")
        except Exception as error:  # the parser's own kinds of errors
            t.that(False, f"{name}: SVG is not well-formed: {error}")
        t.that(
            "var(--" not in svg and "NaN" not in re.sub('data:[^"]*', "", svg),
            f"{name}: SVG has no open variable and no NaN",
        )
    for name in b.js("report.tables()"):
        rows = list(csv.reader(io.StringIO(b.js(f"report.csv('{name}')"))))
        records = json.loads(b.js(f"report.json('{name}')"))
        t.that(len(rows) == len(records) + 1 and len({len(r) for r in rows}) == 1, f"{name}: CSV and JSON agree")
    if b.js("report.figures().length"):
        size = b.js("probe.drawn(report.svg(report.figures()[0]))")
        t.that(size > 0, "a saved SVG can be drawn as a picture")


def luminance(b):
    return b.js("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number).reduce((a, c) => a + c, 0)")


def run(browser, path, shots, t):
    text = path.read_text(encoding="utf-8")
    begin = text.index('type="application/json">') + len('type="application/json">')
    data = json.loads(text[begin : text.index("</script>", begin)])  # Python's reader takes NaN, as the page does
    browser.screen(1280, 900)
    started = time.monotonic()
    browser.open(path.resolve().as_uri())
    browser.settle()
    print(f"{path.name}: drawn in {time.monotonic() - started:.1f} s")
    browser.js(TOOLS)
    save = (lambda name: browser.shot(shots / f"{path.stem}-{name}.png")) if shots else (lambda name: None)
    check_structure(browser, t, data)
    t.equal(
        browser.js("document.documentElement.scrollWidth <= innerWidth"),
        True,
        f"no overflow at 1280: {browser.js('probe.wide()')}",
    )
    save("light")
    if data["groups"]:
        check_methods(browser, t, data["groups"][0])
        check_controls(browser, t)
        check_exports(browser, t)
    browser.screen(1280, 900, dark=True)
    t.that(luminance(browser) < 150, "dark mode has a dark ground")
    t.equal(browser.js("document.documentElement.scrollWidth <= innerWidth"), True, "no overflow in dark mode")
    save("dark")
    browser.screen(390, 844, phone=True)
    t.equal(
        browser.js("document.documentElement.scrollWidth <= 390"),
        True,
        f"no overflow on a phone: {browser.js('probe.wide()')}",
    )
    t.equal(browser.js("probe.wide()"), [], "nothing reaches out of a phone's screen")
    save("phone")
    browser.screen(1280, 900)
    pdf = base64.b64decode(browser.call("Page.printToPDF", printBackground=False, preferCSSPageSize=True)["data"])
    t.that(pdf.startswith(b"%PDF"), "the page prints")
    if shots:
        (shots / f"{path.stem}.pdf").write_bytes(pdf)
    for complaint in browser.complaints():
        t.that(False, complaint)


def main():
    parser = argparse.ArgumentParser(description="checks a report page in headless Chromium")
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--shots", type=pathlib.Path)
    args = parser.parse_args()
    program = next((p for p in map(shutil.which, BROWSERS) if p), None)
    if program is None:
        print("skipped: no chromium on this machine")
        return 77
    if args.shots:
        args.shots.mkdir(parents=True, exist_ok=True)
    t = Checks()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        try:
            run(browser, args.file, args.shots, t)
        except Exception as error:
            t.that(False, f"{type(error).__name__}: {error}")
            for complaint in browser.complaints():
                print("    ", complaint)
        finally:
            browser.close()
    print(f"{args.file.name}: {t.count} checks, {len(t.failures)} failed")
    return 1 if t.failures else 0


if __name__ == "__main__":
    sys.exit(main())
