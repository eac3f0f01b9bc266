"""Looks at the report as a person would: the D2 runs without and with clipping, and a run with every
diagnostic, in a real browser."""
import html
import json
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile
import unittest
import zlib

import gradwatch_testing as testing
from gradwatch_testing import cli

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")

# Measures the page it stands in: boxes of all texts and pictures in pixels.
PROBE = """<pre id="probe" hidden></pre><script>
const seen = [];
const boxOf = (box, text, picture) => seen.push({
  text, picture, left: box.left, right: box.right, top: box.top + scrollY,
  bottom: box.bottom + scrollY});
const pictures = [...document.querySelectorAll("figure > svg")];
pictures.forEach((svg, i) => {
  for (const text of svg.querySelectorAll("text")) {
    boxOf(text.getBoundingClientRect(), text.textContent, i);
  }
});
const walker = document.createTreeWalker(document.querySelector("body"), NodeFilter.SHOW_TEXT);
for (let node = walker.nextNode(); node; node = walker.nextNode()) {
  if (!node.data.trim() || node.parentElement.closest("svg, script, #probe")) continue;
  const range = document.createRange();
  range.selectNodeContents(node);
  for (const box of range.getClientRects()) boxOf(box, node.data.trim(), -1);
}
document.getElementById("probe").textContent = JSON.stringify({
  texts: seen,
  width: document.documentElement.scrollWidth,
  window: innerWidth,
  pictures: pictures.map(svg => {
    const box = svg.getBoundingClientRect();
    return {label: svg.getAttribute("aria-label"), left: box.left, right: box.right,
            top: box.top + scrollY, bottom: box.bottom + scrollY};
  })});
</script></body>"""

# Viridis, which no other part of the page uses.
VIRIDIS = [(68, 1, 84), (72, 40, 120), (62, 73, 137), (49, 104, 142), (38, 130, 142),
           (31, 158, 137), (53, 183, 121), (110, 206, 88), (181, 222, 43), (253, 231, 37)]


def browse(page, *flags):
    """Opens a file in the browser; returns (standard output, messages on the page's console)."""
    with tempfile.TemporaryDirectory() as profile:
        result = subprocess.run(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--disable-dev-shm-usage", "--enable-logging=stderr", f"--user-data-dir={profile}",
             *flags, page.as_uri()],
            capture_output=True, text=True, timeout=testing.PATIENCE_SECONDS, check=True)
    return result.stdout, re.findall(r"CONSOLE.*", result.stderr)


def probe(page, width):
    """What PROBE measures of the page in a window of that width."""
    text = page.read_text()
    probed = page.with_suffix(".probed.html")
    # The page forbids every script, ours too.
    text = re.sub(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", "", text)
    probed.write_text(text.replace("</body>", PROBE))
    dom, _ = browse(probed, f"--window-size={width},900", "--dump-dom")
    return json.loads(html.unescape(
        re.search(r'<pre id="probe" hidden="">(.*?)</pre>', dom, re.S).group(1)))


def overlapping(measured):
    """Pairs of texts whose boxes share more than a pixel each way."""
    texts = sorted(measured["texts"], key=lambda box: box["top"])
    pairs = []
    for i, a in enumerate(texts):
        for b in texts[i + 1:]:
            if b["top"] >= a["bottom"] - 1:
                break
            across = min(a["right"], b["right"]) - max(a["left"], b["left"])
            if across > 1:
                pairs.append((a["text"], b["text"]))
    return pairs


def pixels(path):
    """The pixels of a PNG of 8 bits as rows of (red, green, blue)."""
    data = path.read_bytes()
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert depth == 8 and kind in (2, 6), (depth, kind)
    channels = 3 if kind == 2 else 4
    packed, at = b"", 8
    while at < len(data):
        length, name = struct.unpack(">I4s", data[at:at + 8])
        if name == b"IDAT":
            packed += data[at + 8:at + 8 + length]
        at += 12 + length
    raw = zlib.decompress(packed)
    stride = width * channels
    before = bytearray(stride)
    rows = []
    for y in range(height):
        begin = y * (stride + 1)
        filtering, row = raw[begin], bytearray(raw[begin + 1:begin + 1 + stride])
        for i in range(stride):
            left = row[i - channels] if i >= channels else 0
            above = before[i]
            if filtering == 1:
                row[i] = (row[i] + left) & 255
            elif filtering == 2:
                row[i] = (row[i] + above) & 255
            elif filtering == 3:
                row[i] = (row[i] + (left + above) // 2) & 255
            elif filtering == 4:
                corner = before[i - channels] if i >= channels else 0
                guess = left + above - corner
                nearest = min((abs(guess - left), 0, left), (abs(guess - above), 1, above),
                              (abs(guess - corner), 2, corner))[2]
                row[i] = (row[i] + nearest) & 255
        rows.append([tuple(row[i:i + 3]) for i in range(0, stride, channels)])
        before = row
    return rows


def is_viridis(color):
    return any(sum(abs(a - b) for a, b in zip(color, stop)) < 40 for stop in VIRIDIS)


@unittest.skipUnless(BROWSER, "chromium is not here")
class ReportTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        context = testing.running_server("--running-jobs=2")
        cls.server = context.__enter__()
        cls.addClassCleanup(context.__exit__, None, None, None)
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        examples = testing.SOURCE / "deploy" / "examples"
        for job, file in (("unclipped", "d2-temporal-order"),
                          ("clipped", "d2-temporal-order-clipped")):
            cli(cls.server, "submit", "--file", str(examples / f"{file}.yaml"), "--id", job)
        # Names as long as they may be and without a blank; alerts close together; a run that is lost.
        spec = (examples / "d1-boom.yaml").read_text()
        long_name = "&".join("Long<Name>" * 3 for _ in range(4))
        spec = re.sub(r"^display_name:.*$", f"display_name: '{long_name}'", spec, flags=re.M)
        (cls.folder / "boom.yaml").write_text(spec)
        cli(cls.server, "submit", "--file", str(cls.folder / "boom.yaml"), "--id", "a" * 60)
        # A job that recorded nothing through time, and one of a single step.
        cli(cls.server, "submit", "--time-steps", "10", "--hidden", "8", "--steps", "1", "--id",
            "short")
        # Everything that can be measured; a loss at every time step; shadow clips to the most.
        for job, layers, shadows in (("measured", "1", "0.1,0.5,value:0.1"),
                                     ("deep", "3", "0.01,0.02,0.05,0.1,0.2,0.5,value:0.1,5")):
            cli(cls.server, "submit", "--task", "copy-memory", "--delay", "20", "--cell", "lstm",
                "--layers", layers, "--hidden", "16", "--steps", "300", "--stats", "full",
                "--compare-steps", "true", "--recurrent-every", "10", "--probe-every", "20", "--shadow-clip", shadows,
                "--id", job)
        cls.pages = {}
        for job in ("unclipped", "clipped", "a" * 60, "short", "measured", "deep"):
            cli(cls.server, "watch", job, expect=None)
            cls.pages[job] = cls.folder / f"{job}.html"
            cli(cls.server, "report", job, "--output", str(cls.pages[job]))

    def test_pages_open_without_a_complaint(self):
        for job, page in self.pages.items():
            with self.subTest(job):
                _, console = browse(page, "--dump-dom")

                self.assertEqual(console, [])

    def test_nothing_overlaps_and_nothing_sticks_out(self):
        for job, page in self.pages.items():
            for width in (1000, 500):
                with self.subTest(job=job, width=width):
                    measured = probe(page, width)

                    self.assertGreater(len(measured["texts"]), 60)
                    self.assertEqual(overlapping(measured), [])
                    self.assertLessEqual(measured["width"], measured["window"])
                    for text in measured["texts"]:
                        self.assertGreaterEqual(text["left"], 0, text)
                        self.assertLessEqual(text["right"], measured["window"] + 0.5, text)
                        if text["picture"] >= 0:
                            picture = measured["pictures"][text["picture"]]
                            self.assertGreaterEqual(text["left"], picture["left"] - 1, text)
                            self.assertLessEqual(text["right"], picture["right"] + 1, text)
                            self.assertGreaterEqual(text["top"], picture["top"] - 2, text)
                            self.assertLessEqual(text["bottom"], picture["bottom"] + 2, text)

    def test_pictures_show_what_they_name(self):
        for job in ("unclipped", "clipped"):
            with self.subTest(job):
                labels = [p["label"] for p in probe(self.pages[job], 1000)["pictures"]]

                self.assertIn("Loss over the training steps", labels)
                self.assertIn("Norm of the gradient before and after clipping", labels)
                self.assertIn("Gradient at the state, by training step and lag", labels)
                self.assertEqual("Share of clipped steps" in labels, job == "clipped")

    def test_pictures_show_the_advice(self):
        for job in ("unclipped", "clipped"):
            with self.subTest(job):
                advice = json.loads(cli(self.server, "advise", job, "-o", "json").stdout)
                texts = {text["text"] for text in probe(self.pages[job], 1000)["texts"]}

                self.assertIn(f"advised {advice['recommended']['max_norm']:g}", texts)
                self.assertIn("Advice on the threshold", texts)
        self.assertIn("too little data", self.pages["short"].read_text())

    def test_looks_closer_where_more_was_measured(self):
        for job in ("measured", "deep"):
            with self.subTest(job):
                measured = probe(self.pages[job], 1000)
                labels = [picture["label"] for picture in measured["pictures"]]
                texts = {text["text"] for text in measured["texts"]}

                for label in ("Gradient by gate", "How open the gates are", "Memory of the units",
                              "Slope of the activation", "Similarity of the states",
                              "Direction of successive gradients", "Way gone by the weights",
                              "Recurrent matrices",
                              "Gradient from the last time step alone, by lag"):
                    self.assertEqual(labels.count(label), 1, label)
                self.assertTrue({"Closer look", "Shadow clips", "shadow 3"} <= texts)
        self.assertNotIn("Closer look", self.pages["short"].read_text())

    def test_screenshots_are_drawn(self):
        for job in ("unclipped", "clipped"):
            with self.subTest(job):
                shot = self.folder / f"{job}.png"
                browse(self.pages[job], "--window-size=1000,3200",
                       "--force-device-scale-factor=0.25", f"--screenshot={shot}")

                colors = [color for row in pixels(shot) for color in row]

                inked = sum(color != (255, 255, 255) for color in colors) / len(colors)
                mapped = sum(map(is_viridis, colors)) / len(colors)
                self.assertGreater(inked, 0.1)
                self.assertLess(inked, 0.7)
                self.assertGreater(mapped, 0.02)
                self.assertLess(mapped, 0.2)

    def test_verdicts_tell_the_runs_apart(self):
        unclipped = self.pages["unclipped"].read_text()
        clipped = self.pages["clipped"].read_text()

        self.assertIn("The gradient vanishes through time", unclipped)
        self.assertIn("Gradients were not clipped.", unclipped)
        self.assertIn("Solved the task", clipped)
        self.assertIn("Clipping (norm 0.5) acted in", clipped)

    def test_prints_on_a_few_pages(self):
        pdf = self.folder / "clipped.pdf"

        browse(self.pages["clipped"], "--no-pdf-header-footer", f"--print-to-pdf={pdf}")

        pages = len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes()))
        self.assertGreaterEqual(pages, 2)
        self.assertLessEqual(pages, 8)

    def test_the_checks_see_what_is_wrong(self):
        page = self.folder / "wrong.html"
        page.write_text("<!DOCTYPE html><html><body style='width: 1500px'><p>one</p>"
                        "<p style='margin-top: -30px'>two</p>"
                        "<script>console.error('broken')</script></body></html>")

        measured = probe(page, 1000)
        _, console = browse(page, "--dump-dom")

        self.assertEqual(overlapping(measured), [("one", "two")])
        self.assertGreater(measured["width"], measured["window"])
        self.assertIn("broken", "".join(console))


if __name__ == "__main__":
    unittest.main(verbosity=2)
