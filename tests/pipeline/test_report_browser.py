"""The page as people meet it: opened from disk in a real browser, wide and narrow, light and dark, by hand and key."""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from models.spec import Column
from pipeline.config import load
from pipeline.presets import PRESETS
from pipeline.report.drawing import PARTS, draw_results
from pipeline.report.folder import write_report
from pipeline.report.picture import picture_of
from pipeline.report.study import Study, read_study
from tests.pipeline.browser import BROWSER, Seen, look
from tests.pipeline.cases import DECODING
from tests.pipeline.test_report import artifacts, manifest_of, study_of
from tests.pipeline.test_report_moe import study_with_experts
from tests.pipeline.test_report_taps import study_with_taps

pytestmark = [
    pytest.mark.slow,
    pytest.mark.pages,
    pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome on the PATH"),
    pytest.mark.filterwarnings(DECODING),
]
PAGES = ("trees", "taps", "experts", "many", "printed", "files")
LOCKED = "allow-scripts"  # the frame in which MLflow shows a page
WAYS: dict[str, dict[str, Any]] = {
    "wide": {},
    "narrow and dark": {"width": 400, "dark": True},
    "locked": {"width": 1000, "sandbox": LOCKED},
}
POLICY = "default-src 'none'"
See = Callable[..., Seen]
PageOf = Callable[[str], Path]
Visit = Callable[[str, str], Seen]


def printed_study() -> Study:
    """Invented results of a study that a paper prints."""
    columns = {
        "segmentation": Column(layout="mask", classes=("road", "sky")),
        "instances": Column(layout="instances"),
        "disparity": Column(layout="field", unit="px"),
    }
    manifests = {"cityscapes": replace(manifest_of(columns), name="cityscapes")}
    return replace(study_of(3, 1, list(columns)), config=load(PRESETS / "cityscapes.yaml"), manifests=manifests)


def study_from(name: str, folder: Path) -> Study:
    """A study of each kind: trees alone, with TAPS, with experts and new data sets, of forty tasks, of a paper's."""
    makers: dict[str, Callable[[], Study]] = {
        "trees": lambda: study_of(3, 3),
        "taps": lambda: study_with_taps(folder, 4),
        "experts": lambda: study_with_experts(folder, 5),
        "many": lambda: study_of(40),
        "printed": printed_study,
        "files": lambda: read_study(artifacts(folder), folder),
    }
    return makers[name]()


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> PageOf:
    """Make the report of a kind of study, once, and give its page."""
    made: dict[str, Path] = {}

    def page(name: str) -> Path:
        if name not in made:
            base, folder = tmp_path_factory.mktemp("artifacts"), tmp_path_factory.mktemp(name)
            study = study_from(name, base)
            parts = PARTS if name == "files" else [draw_results]
            pictures = [picture_of(drawing) for part in parts for drawing in part(study, base)]
            write_report(study, pictures, folder, "abc-dirty")
            made[name] = folder / "index.html"
        return made[name]

    return page


@pytest.fixture
def see(page_of: PageOf, tmp_path: Path) -> See:
    """Run a script in the page of a kind of study."""
    count = iter(range(100))
    return lambda name, script, **how: look(page_of(name), script, tmp_path / str(next(count)), **how)


def widgets(page: Path) -> list[tuple[str, dict[str, Any]]]:
    """The interactive figures of a page: their kind and their data."""
    found = re.findall(
        r'<div class="widget" data-kind="(\w+)"><script type="application/json">(.*?)</script>', page.read_text(), re.S
    )
    return [(kind, json.loads(data)) for kind, data in found]


def plane(page: Path) -> dict[str, Any]:
    """The data of the plane of all networks."""
    return next(data for kind, data in widgets(page) if kind == "pareto")


class Addresses(HTMLParser):
    """The links of a page and the ids that they may lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if (tag, name) == ("a", "href"):
                self.links.add(unquote(value or ""))
            if name == "id":
                self.ids.append(value or "")


@pytest.fixture(scope="module")
def visit(page_of: PageOf, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    """Look at a page in one of the WAYS, once."""
    seen: dict[tuple[str, str], Seen] = {}

    def look_at(name: str, way: str) -> Seen:
        if (name, way) not in seen:
            seen[name, way] = look(page_of(name), "return visit();", tmp_path_factory.mktemp("browser"), **WAYS[way])
        return seen[name, way]

    return look_at


def test_the_looking_sees_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "wrong.html"
    page.write_text(
        """<!doctype html><html lang="en"><head><meta http-equiv="Content-Security-Policy"
        content="img-src http:"></head>
        <body style="width: 3000px"><img src="http://example.invalid/x.png" alt=""><p style="color: #aaa">pale</p>
        <p>plain</p><button tabindex="-1">far</button><button></button><svg width="60" height="20"><rect width="60"
        height="20" fill="#222"/><text y="15">dark</text></svg><script>console.warn("a word")</script></body></html>"""
    )
    seen = look(page, "return visit();", tmp_path / "browser", width=400)
    assert [address for address in seen.requests if "example.invalid" in address]
    assert any("a word" in line for line in seen.console)
    found = seen.result
    assert found["sideways"] == 3000 + 8 - 400
    assert found["broken"] == 1
    assert [words.split(" ", 1)[1].strip() for words in found["faint"]] == ["p. pale", "text. dark"]
    assert [words.strip() for words in found["unreached"]] == ["button. far"]
    assert [words.strip() for words in found["unnamed"]] == ["button."]


def on_every_page(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize("way", WAYS)(pytest.mark.parametrize("name", PAGES)(test))


@on_every_page
def test_the_page_opens_without_a_word_and_asks_for_nothing(visit: Visit, name: str, way: str) -> None:
    seen = visit(name, way)
    assert seen.console == ()
    assert seen.result["resources"] == []
    assert seen.result["policy"].startswith(POLICY)
    assert seen.requests == ()


@on_every_page
def test_the_page_is_whole_and_scrolls_one_way(visit: Visit, name: str, way: str) -> None:
    found = visit(name, way).result
    assert found["empty"] == 0, "every figure is drawn by its script"
    assert found["broken"] == 0
    assert found["sideways"] <= 0


@on_every_page
def test_every_text_stands_out_from_what_is_behind_it(visit: Visit, name: str, way: str) -> None:
    assert visit(name, way).result["faint"] == []


@on_every_page
def test_the_keyboard_reaches_all_that_a_mouse_can(visit: Visit, name: str, way: str) -> None:
    assert visit(name, way).result["unreached"] == []


@on_every_page
def test_what_one_acts_on_has_a_name(visit: Visit, name: str, way: str) -> None:
    found = visit(name, way).result
    assert {key: found[key] for key in ("unnamed", "silent", "untold")} == {
        "unnamed": [],
        "silent": [],
        "untold": [],
    }


@on_every_page
def test_every_link_leads_somewhere(visit: Visit, page_of: PageOf, name: str, way: str) -> None:
    page = page_of(name)
    found = Addresses(page.read_text())
    twice = [one for one, times in Counter(found.ids).items() if times > 1]
    assert [one for one in twice if not one.startswith("job-")] == []  # the invented study trains two by one job
    for link in found.links | {unquote(link) for link in visit(name, way).result["links"]}:
        if link.startswith("#"):
            assert link[1:] in found.ids, link
        else:
            assert (page.parent / link).is_file(), link


@pytest.mark.parametrize("name", ["trees", "taps", "experts"])
def test_every_slider_changes_its_figure_and_back_again(see: See, name: str) -> None:
    rows = see(name, "return slideAll();").result
    assert "pareto" in {row["kind"] for row in rows}
    assert [row for row in rows if not (row["changed"] and row["told"] and row["back"])] == []


def test_the_budget_picks_the_best_on_validation_that_it_allows(see: See, page_of: PageOf) -> None:
    data = plane(page_of("taps"))
    said = see("taps", "return budgets();").result
    asked = {row["params"] for row in data["budgets"] if row["params"]}
    sizes = sorted({point["params"] for point in data["points"]} | asked)
    assert len(said) == len(sizes)
    for budget, row in zip(sizes, said, strict=True):
        fitting = [point for point in data["points"] if point["params"] <= budget]
        if not fitting:
            assert "Nothing" in row["verdict"]
            continue
        best = max(fitting, key=lambda point: (point["val"], -point["params"]))
        assert f"Best on validation is {best['label']}" in row["verdict"]
        assert best["label"] in row["cards"]


def test_what_the_paper_prints_is_drawn_and_never_chosen(see: See, page_of: PageOf) -> None:
    data = plane(page_of("printed"))
    printed = {row["label"] for row in data["published"]}
    assert printed >= {"Ours-1", "Ours-2", "Ours-3"}
    assert not printed & {row["label"] for row in data["points"]}
    found = see("printed", "return papers();").result
    assert len(found["labels"]) == len(printed)
    assert all("branched paper, Table 2" in label for label in found["labels"])
    assert set(found["fills"]) == {"none"}
    assert "Ours-" not in found["said"]


def test_tables_sort_by_value_and_come_back(see: See) -> None:
    columns, numbers = see("taps", "return sortAll();").result, 0
    for column in columns:
        assert column["back"], "the third click brings the order back"
        assert column["same"], "rows stay whole"
        first, second, third = column["orders"]
        assert {first["way"], second["way"]} == {"ascending", "descending"}
        assert third["way"] is None
        for order in (first, second):
            known = [float(value) for value in order["values"] if re.fullmatch(r"-?[\d.]+(e[+-]?\d+)?", value)]
            if len(known) == len(order["values"]):
                assert known == sorted(known, reverse=order["way"] == "descending")
                numbers += len(set(known)) > 1
    assert numbers > 10


def test_copied_tables_are_the_tables(see: See, page_of: PageOf) -> None:
    found = see("taps", "return copies();").result
    latex, comma, markdown, command = found["texts"]
    width, height = found["width"], len(found["names"])
    lines = [line for line in latex.splitlines() if line.endswith("\\\\")]
    assert [line.count(" & ") for line in lines] == [width - 1] * height
    rows = list(csv.reader(comma.splitlines()))
    assert [len(row) for row in rows] == [width] * height
    assert [row[0] for row in rows] == found["names"]
    with (page_of("taps").parent / "tables" / "results.csv").open() as file:
        deltas = [float(row["delta_mtl"]) for row in csv.DictReader(file)]
    place = next(place for place, name in enumerate(rows[0]) if name.startswith("Δ_MTL"))
    assert [float(row[place]) for row in rows[1:]] == pytest.approx(deltas)
    bars = [re.sub(r"\\.", "", line).count("|") for line in markdown.splitlines()]
    assert bars == [width + 1] * (height + 1)
    assert command == found["command"]
    assert "make repro" in command


def test_where_there_is_no_clipboard_the_text_stands_selected(see: See) -> None:
    found = see("trees", "return selected();", sandbox=LOCKED).result
    assert found["focused"]
    assert found["part"].startswith("% \\usepackage{booktabs}")


def test_pointing_and_focus_tell_what_a_point_is(see: See, page_of: PageOf) -> None:
    points = plane(page_of("trees"))["points"]
    found = see("trees", "return tips();").result
    assert len(found) == len(points)
    for row in found:
        assert any(point["label"] in row["hovered"] for point in points)
        assert "ΔMTL" in row["hovered"], "with its index"
        assert row["gone"]
        assert row["focused"] == row["hovered"]
        assert row["linked"] == "tip"


@pytest.mark.parametrize("name", PAGES)
def test_every_figure_lies_beside_the_page_in_every_form(page_of: PageOf, name: str) -> None:
    page = page_of(name)
    shown = set(re.findall(r'<figure id="figure-([^"]+)"', page.read_text()))
    assert shown
    for kind in ("png", "pdf"):
        assert {path.stem for path in (page.parent / "figures").glob(f"*.{kind}")} == shown
    assert page.stat().st_size < 15e6


def test_without_scripts_the_pictures_stand_there(page_of: PageOf) -> None:
    text = page_of("taps").read_text()
    count = len(widgets(page_of("taps")))
    assert count > 3
    assert len(re.findall(r"</script><noscript>\s*<div class=\"scroll\"><img src=\"data:image/", text)) == count


def test_light_and_dark_change_places(see: See) -> None:
    script = """
        await settle();
        const papers = [getComputedStyle(document.body).backgroundColor];
        for (let click = 0; click < 2; click += 1) {
          one("button.theme").click();
          papers.push(getComputedStyle(document.body).backgroundColor);
        }
        return papers.map((paper) => light(colour(paper)));
    """
    for dark in (False, True):
        first, second, third = see("trees", script, dark=dark).result
        assert first == third
        assert (first < 0.2, second < 0.2) == (dark, not dark)
