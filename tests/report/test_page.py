"""The page in a real browser, without a network."""

import dataclasses
import shutil

import pytest

from prunus import records, report
from prunus.errors import RecordError

CHARTS = {"curve-0", "widths", "macs", "channels", "metric", "seconds", "classes", "latency"}
DRAWN = """name => {
  const chart = document.getElementById("chart-" + name);
  const traces = [...chart.querySelectorAll(".barlayer .trace")];
  const bars = traces.map(trace => trace.querySelectorAll(".point").length);
  return {bars, lines: chart.querySelectorAll(".scatterlayer .trace").length, width: chart.clientWidth};
}"""


@pytest.fixture(scope="module")
def browser():
    executable = shutil.which("chromium")
    if executable is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    arguments = ["--no-sandbox", "--disable-background-networking"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=arguments)
        yield browser
        browser.close()


def open_report(browser, path, troubles, **options):
    """Open a report offline; what it asks of a network or complains about is added to `troubles`."""
    page = browser.new_page(offline=True, **options)
    page.set_default_timeout(120_000)  # beside other tests
    page.on("console", lambda message: troubles.append(f"console: {message.type}: {message.text}"))
    page.on("pageerror", lambda error: troubles.append(f"page: {error}"))
    page.on("dialog", lambda dialog: (troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: requests.append(request.url))
    requests: list[str] = []
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-charts]", state="attached")
    assert page.evaluate("document.documentElement.dataset.charts") == "drawn"
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
    return page


@pytest.fixture
def opened(browser):
    pages, troubles = [], []

    def open_one(path, **options):
        pages.append(open_report(browser, path, troubles, **options))
        return pages[-1]

    yield open_one
    for page in pages:
        page.close()
    assert troubles == []


@pytest.fixture(scope="module")
def whole(browser, whole_run):
    """The report of a whole run, opened once for all tests that only read it."""
    troubles: list[str] = []
    page = open_report(browser, report.write(whole_run), troubles, color_scheme="light")
    yield page
    page.close()
    assert troubles == []


def values(page, selector: str) -> list[float | None]:
    raw = page.eval_on_selector_all(f"{selector} data", "nodes => nodes.map(node => node.value)")
    return [float(text) if text else None for text in raw]


def test_every_chart_is_drawn(whole, make):
    page = whole
    names = page.eval_on_selector_all("[data-figure]", "nodes => nodes.map(node => node.dataset.figure)")
    assert set(names) == CHARTS
    drawn = {name: page.evaluate(DRAWN, name) for name in CHARTS}
    num_layers = len(make.widths_record().layers)
    assert drawn["widths"]["bars"] == [num_layers, num_layers]
    assert drawn["classes"]["bars"] == [9, 9]
    assert drawn["latency"]["bars"] == [3, 3]
    assert {name: drawn[name]["lines"] for name in ("macs", "channels", "metric", "seconds")} == {
        "macs": 3, "channels": 2, "metric": 2, "seconds": 2,
    }  # fmt: skip
    assert page.locator("#chart-latency .errorbar").count() == 6
    shown = page.locator(".sample img").evaluate_all("nodes => nodes.map(node => node.naturalWidth)")
    assert shown == [128] * 4 * (3 + 2)
    assert drawn["curve-0"]["lines"] == 2


def test_the_values_shown_are_those_recorded(whole, whole_run, make):
    page = whole
    wide, narrow = make.evaluation_record("wide"), make.evaluation_record("narrow")
    assert values(page, '[data-quantity="metric"]') == [narrow.metrics["miou"], wide.metrics["miou"]]
    assert values(page, '[data-quantity="macs"]') == [narrow.macs, wide.macs]
    assert values(page, '[data-quantity="params"]') == [narrow.params, wide.params]
    assert values(page, '[data-quantity="training_seconds"]') == [124.8, 161.2]
    found = records.read(whole_run)
    latencies = {(r.model, r.backend): r for r in found if isinstance(r, records.LatencyRecord)}
    for (model, backend), record in latencies.items():
        row = f'tr[data-backend="{backend}"][data-model="{model}"]'
        assert values(page, row) == [record.median_ms, record.p95_ms, record.peak_memory_mb]
    rows = page.locator("#classes tbody tr").all()
    assert [row.locator("th").inner_text() for row in rows] == list(wide.per_class)
    per_class = values(page, "#classes tbody")
    assert per_class[0::2] == list(wide.per_class.values())
    assert per_class[1::2] == list(narrow.per_class.values())
    # What the eye sees is the same, rounded.
    assert page.locator("h1").inner_text().replace("\u00a0", " ").startswith("38 % of the MACs, 46 % of the latency")
    assert page.locator('[data-quantity="macs"] .figure').inner_text() == "0.457\u00a0G"
    assert page.locator(".checks .kept").count() == 3


@pytest.mark.parametrize("width", [400, 1600, 1280])
def test_the_page_fits_a_phone_and_a_desk(whole, width):
    whole.set_viewport_size({"width": width, "height": 900})
    assert whole.evaluate("document.documentElement.scrollWidth") <= width


def test_colours_follow_the_scheme_and_paper_is_light(whole):
    expect = pytest.importorskip("playwright.sync_api").expect
    expect.set_options(timeout=120_000)
    narrow = whole.locator("#chart-classes .trace").nth(1).locator(".point path").first
    expect(narrow).to_have_css("fill", "rgb(140, 47, 99)")
    whole.emulate_media(color_scheme="dark")
    expect(narrow).to_have_css("fill", "rgb(228, 135, 182)")
    assert whole.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(23, 21, 26)"
    whole.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(narrow).to_have_css("fill", "rgb(140, 47, 99)")
    assert whole.locator("#chart-macs svg").first.get_attribute("width") == "330"
    whole.evaluate("dispatchEvent(new Event('afterprint'))")
    expect(narrow).to_have_css("fill", "rgb(228, 135, 182)")
    width = whole.evaluate("document.getElementById('chart-macs').clientWidth")
    assert float(whole.locator("#chart-macs svg").first.get_attribute("width")) == pytest.approx(width, abs=1)
    whole.emulate_media(color_scheme="light")


def test_it_can_be_read_without_eyes(whole):
    page = whole
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.locator("[data-figure]:not([aria-label])").count() == 0
    assert page.locator("table:not(:has(thead th[scope=col]))").count() == 0
    assert page.locator("h1").count() == 1


def test_an_incomplete_run_says_what_is_missing(opened, make, tmp_path):
    found = [make.run_record(), make.epoch_record("narrow", 1), make.evaluation_record("narrow")]
    page = opened(report.write(make.write_records(tmp_path, found)))
    said = " ".join(page.locator(".absent").all_inner_texts())
    for words in ("units per layer", "No wide network", "No latency", "No images", "No exported", "No edit"):
        assert words in said
    assert page.evaluate(DRAWN, "classes")["bars"] == [9]
    assert page.locator(".checks .unknown").count() == 3


def test_a_run_of_which_little_is_known_is_still_a_page_and_one_of_which_nothing_is_is_refused(opened, tmp_path):
    (tmp_path / "records.jsonl").write_text("")
    with pytest.raises(RecordError, match="is empty"):
        report.write(tmp_path)
    records.Recorder(tmp_path).write(records.NoteRecord(text="begun"))
    page = opened(report.write(tmp_path))
    assert page.locator("h1").inner_text() == "A run without records"
    assert page.locator("section > .absent").count() >= 8


def test_hostile_names_are_text(opened, make, tmp_path):
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'<b>{{ 7 * 7 }}"
    wide = make.evaluation_record("wide")
    found: list[records.Record] = [
        make.run_record(
            name=hostile, command=hostile, recipe={hostile: hostile}, versions={hostile: hostile},
            hardware={hostile: hostile}, class_names=(hostile,), started=hostile,
        ),
        records.WidthsRecord(layers=(hostile,), initial=(8,), learned=(3,)),
        dataclasses.replace(wide, split=hostile, metrics={hostile: 0.5}, per_class={hostile: 0.5}),
        make.latency_record("wide", hostile, 3.0),
        make.parity_record("wide", hostile),
        records.EditRecord(edit=hostile, summary=hostile, exact=False, max_rel_diff=None),
        records.NoteRecord(text=hostile),
        records.SampleRecord(index=0, image=hostile, truth=hostile, wide=hostile, narrow=hostile),
    ]  # fmt: skip
    page = opened(report.write(make.write_records(tmp_path, found)))
    assert page.locator("#notes li").inner_text() == hostile
    assert page.locator("#run-name").inner_text() == hostile
    assert page.locator("#classes tbody th").inner_text() == hostile
    assert page.locator("img").count() == 0
    assert page.locator("main script, main b:not(.eyebrow b):not(.checks b)").count() == 0
    tick = page.locator("#chart-widths .xtick text")
    assert tick.text_content() == "…" + hostile[-23:]
