// The curves of several runs on one pair of axes. What is shown is in the address; the tables are the server's.
import { Chart, TableTwin, color, roundAxis } from "../charts.js";
import { $, $$, icon, press, setQuery, toast } from "../dom.js";
import { bytes, duration, isLowerBetter, isShare, metric, metricLabel, smoothed } from "../format.js";
import { onShortcut } from "../keys.js";

const HUES = 6;
/** As `_DASHES` of the server's `run_key`. */
const DASHES = ["solid", "dash", "dot", "solid", "dashdot", "longdash", "dot", "dash"];
const [ROUND, SECONDS, BYTES, VALUE] = [0, 1, 2, 3];
const AXES = {
  round: { title: "Round", at: (point) => point[ROUND] },
  time: { title: "Time since the start (min)", at: (point) => point[SECONDS] / 60 },
  traffic: { title: "Traffic, both ways (GB)", at: (point) => point[BYTES] / 1e9 },
};
const LOOK_AGAIN_MS = 15_000;

const query = new URLSearchParams(location.search);
const page = $("#compare");
const panel = $("#curves");
const hidden = new Set((query.get("hide") ?? "").split(",").filter(Boolean));
const view = {
  metric: query.get("show"),
  x: query.get("x") in AXES ? query.get("x") : "round",
  smooth: Math.min(0.95, Math.max(0, Number(query.get("smooth")) || 0)),
  log: query.has("log"),
};
let compared = null;

const shown = () => compared.runs.map((run, index) => ({ ...run, index })).filter((run) => !hidden.has(String(run.id)) && run.curves[view.metric]?.length);

const mostRounds = () => Math.max(1, ...shown().map((run) => run.curves[view.metric].at(-1)[ROUND]));

function trace(run, values, look) {
  const points = run.curves[view.metric];
  const format = isShare(view.metric) ? ".1%" : ".3f";
  return {
    x: points.map(AXES[view.x].at),
    y: values,
    name: run.name,
    mode: points.length > 1 ? "lines" : "markers",
    hovertemplate: `%{y:${format}} ${run.name.replaceAll("<", "&lt;")} #${run.id}<extra></extra>`,
    ...look,
  };
}

function traces(run) {
  const values = run.curves[view.metric].map((point) => point[VALUE]);
  const hue = color(`--c${(run.index % HUES) + 1}`);
  const line = { color: hue, width: 2, dash: DASHES[run.index] };
  const marker = { color: hue, size: 7 };
  if (!view.smooth) return [trace(run, values, { line, marker })];
  const raw = { line: { color: hue, width: 1 }, opacity: 0.3, hoverinfo: "skip", hovertemplate: null };
  return [trace(run, values, raw), trace(run, smoothed(values, view.smooth), { line, marker })];
}

function build() {
  return {
    data: shown().flatMap(traces),
    x: AXES[view.x].title,
    y: metricLabel(view.metric) + (view.smooth ? ", smoothed" : ""),
    revision: `${view.metric} ${view.x} ${view.log}`,
    layout: {
      xaxis: view.x === "round" ? roundAxis(mostRounds()) : { rangemode: "tozero" },
      yaxis: { type: view.log ? "log" : "linear", tickformat: isShare(view.metric) ? ".0%" : "" },
      annotations: shown().length ? [] : [{ text: "No figures to show", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { size: 12, color: color("--text-3") } }],
    },
  };
}

/** One row a run: every curve's end and best point, with where it lies on all axes. */
function table() {
  const head = ["Run", "Rounds", "Last", isLowerBetter(view.metric) ? "Lowest" : "Best", "in round", "after", "with traffic of"];
  const better = isLowerBetter(view.metric) ? (a, b) => a < b : (a, b) => a > b;
  return [head, shown().map((run) => {
    const points = run.curves[view.metric];
    const best = points.reduce((top, point) => (better(point[VALUE], top[VALUE]) ? point : top));
    const value = (point) => metric(view.metric, point[VALUE]);
    return [`${run.name} #${run.id}`, points.at(-1)[ROUND], value(points.at(-1)), value(best), best[ROUND], duration(best[SECONDS]), bytes(best[BYTES])];
  })];
}

const figure = $("figure", panel);
const chart = new Chart(figure, build);
const twin = new TableTwin(figure, table);

function redraw() {
  if (!compared) return;
  if (!compared.metrics.includes(view.metric)) view.metric = compared.metrics[0] ?? "accuracy";
  offerMetrics();
  press($$("[data-axes] button", panel), $(`[data-x="${view.x}"]`, panel));
  for (const button of $$("[data-run]", panel)) button.setAttribute("aria-pressed", String(!hidden.has(button.dataset.run)));
  chart.draw();
  twin.draw();
}

function offerMetrics() {
  const box = $("[data-metrics]", panel);
  if (box.dataset.names !== compared.metrics.join()) {
    box.dataset.names = compared.metrics.join();
    box.replaceChildren(...compared.metrics.map((name) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: metricLabel(name) });
      button.dataset.metric = name;
      return button;
    }));
  }
  press($$("button", box), $(`[data-metric="${CSS.escape(view.metric)}"]`, box));
}

function set(parameter, field, value) {
  if (value === undefined) return;
  view[field] = value;
  setQuery({ [parameter]: value === true ? "1" : value || "" });
  redraw();
}

$("[data-metrics]", panel).addEventListener("click", ({ target }) => set("show", "metric", target.dataset.metric));
$("[data-axes]", panel).addEventListener("click", ({ target }) => set("x", "x", target.dataset.x));
$(".legend", panel).addEventListener("click", ({ target }) => {
  const id = target.closest("button")?.dataset.run;
  if (!id) return;
  if (!hidden.delete(id)) hidden.add(id);
  setQuery({ hide: [...hidden].join(",") });
  redraw();
});
const log = $("[data-log]", panel);
log.checked = view.log;
log.addEventListener("change", () => set("log", "log", log.checked));
onShortcut((key) => { if (key === "l") log.click(); });
const smooth = $("[data-smooth]", panel);
function sayWeight() {
  smooth.value = view.smooth;
  smooth.nextElementSibling.textContent = view.smooth ? view.smooth.toFixed(2) : "off";
}
smooth.addEventListener("input", () => {
  set("smooth", "smooth", Number(smooth.value));
  sayWeight();
});
sayWeight();

$("[data-print]").addEventListener("click", () => print());
$("[data-copy-link]").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(location.href);
    toast("Link copied", "link");
  } catch {
    toast("Copy the address from the address bar", "link");
  }
});

/** What the server is asked about; the rest of the address is how it is looked at. */
const ASKED = ["runs", "metric", "target", "base"];
const asked = new URLSearchParams([...query].filter(([name]) => ASKED.includes(name)));

async function load() {
  const response = await fetch(`${page.dataset.api}?${asked}`, { headers: { Accept: "application/json" } });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  compared = await response.json();
  redraw();
}

/** Curves of runs under way grow; a tab in the background waits. */
async function follow() {
  if (compared.runs.every((run) => run.ended)) return;
  await new Promise((done) => { setTimeout(done, LOOK_AGAIN_MS); });
  if (!document.hidden) await load().catch((error) => console.warn(`The curves could not be fetched: ${error.message}`));
  follow();
}

load().then(follow).catch((error) => {
  console.error(error);
  const box = document.createElement("div");
  box.className = "callout bad";
  box.setAttribute("role", "alert");
  box.innerHTML = `${icon("warn")}<div><b class="b">The curves could not be loaded.</b> <span class="sub">Reload the page to try again. The tables below are whole.</span></div>`;
  page.prepend(box);
});
