// Draws the page's figures and dresses them in the colours of the scheme in which the page is read or printed.
(() => {
  "use strict";

  const figures = JSON.parse(document.getElementById("figures").textContent);
  const charts = [...document.querySelectorAll("[data-figure]")];
  const settings = { displayModeBar: false, responsive: true, showTips: false };
  // Pixels of a printed page's text, and of half of it: where a chart stands on paper.
  const paper = { whole: 690, half: 330 };
  const text = { family: getComputedStyle(document.body).fontFamily, size: 12 };

  // plotly.js lies in the page compressed: it is 4.8 MB, and reports are kept and sent around.
  async function loadPlotly() {
    const packed = atob(document.getElementById("plotly").textContent);
    const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  }

  function dressedTrace(trace) {
    const own = colour(trace.meta.role);
    const line = { color: own, width: trace.meta.role === "narrow" ? 3 : 2 };
    if (trace.meta.role === "budget") line.dash = "dash";
    const dressed = { ...trace };
    if (trace.type === "bar") dressed.marker = { color: own, line: { width: 0 } };
    else Object.assign(dressed, { line, marker: { color: own, size: 6 } });
    if (trace.error_y) {
      dressed.error_y = { ...trace.error_y, color: colour("muted"), thickness: 1.2, width: 4 };
    }
    return dressed;
  }

  function dressedLayout(layout, width) {
    const axis = (given) => ({
      ...given, gridcolor: colour("line"), linecolor: colour("line"), tickcolor: colour("line"),
    });
    return {
      ...layout, width, autosize: !width,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { ...text, color: colour("muted") },
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { ...text, color: colour("ink") } },
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    };
  }

  // A view box lets the style sheet scale a chart to the paper.
  function frame(chart) {
    for (const drawing of chart.querySelectorAll("svg.main-svg")) {
      drawing.setAttribute("viewBox", `0 0 ${drawing.getAttribute("width")} ${drawing.getAttribute("height")}`);
    }
  }

  async function draw(printing = false) {
    document.documentElement.toggleAttribute("data-printing", printing);
    await Promise.all(charts.map((chart) => {
      const figure = figures[chart.dataset.figure];
      const width = printing ? paper[chart.closest(".panels, .beside") ? "half" : "whole"] : undefined;
      const layout = dressedLayout(figure.layout, width);
      const drawn = window.Plotly.react(chart, figure.data.map(dressedTrace), layout, settings);
      if (printing) frame(chart); // before the browser takes its picture: no promise is awaited by then
      return drawn;
    }));
  }

  async function start() {
    try {
      if (charts.length) await loadPlotly();
      await draw();
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
      addEventListener("beforeprint", () => draw(true));
      addEventListener("afterprint", () => draw());
      document.documentElement.dataset.charts = "drawn";
    } catch (error) {
      // An old browser has no DecompressionStream: the numbers are in the tables all the same.
      for (const chart of charts) chart.textContent = `This browser cannot draw the chart (${error}).`;
      document.documentElement.dataset.charts = "failed";
    }
  }

  start();
})();
