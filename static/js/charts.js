// One wrapper round Plotly: theme tokens in; consistent axes, hover, fallback and table twin out.
import { $, esc, whenIdle } from "./dom.js";

const probe = document.createElement("i");
probe.hidden = true;
document.body.append(probe);

/** Resolve a custom property to a colour that Plotly understands. */
export function color(token, alpha = 1) {
  probe.style.color = `var(${token})`;
  const rgb = getComputedStyle(probe).color;
  return alpha === 1 ? rgb : rgb.replace(/rgba?\(([^)]+)\)/, (_, parts) => `rgba(${parts.split(/[ ,/]+/).slice(0, 3).join(",")},${alpha})`);
}

const font = (size, token) => ({ size, color: color(token), family: getComputedStyle(document.body).fontFamily });

const axis = (title) => ({
  title: { text: title, standoff: 8, font: font(11, "--text-3") },
  tickfont: font(11, "--text-3"),
  gridcolor: color("--grid"),
  linecolor: color("--line-2"),
  zeroline: false,
  automargin: true,
});

function baseLayout(xTitle, yTitle) {
  return {
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    margin: { l: 8, r: 8, t: 8, b: 8 },
    showlegend: false,
    hovermode: "x unified",
    dragmode: "zoom",
    uirevision: "keep",
    font: font(11, "--text-2"),
    hoverlabel: { bgcolor: color("--raised"), bordercolor: color("--line-2"), font: font(12, "--text") },
    xaxis: {
      ...axis(xTitle),
      showgrid: false,
      showline: true,
      ticks: "outside",
      ticklen: 4,
      tickcolor: color("--line-2"),
      showspikes: true,
      spikemode: "across",
      spikethickness: 1,
      spikedash: "solid",
      spikecolor: color("--line-2"),
    },
    yaxis: { ...axis(yTitle), nticks: 6 },
  };
}

/** At most ten ticks, each at a whole round. */
export function roundAxis(rounds) {
  const power = 10 ** Math.max(0, Math.floor(Math.log10(rounds / 10)));
  const dtick = [1, 2, 5, 10].map((n) => n * power).find((step) => rounds / step <= 10);
  return { range: [0, rounds], tick0: 0, dtick };
}

/** The library is fetched beside the page (`<link id="plotly">`), and run when a chart is to be drawn or the page has nothing else to do: nothing else
 * waits for it. Gives whether it came. */
let arrival = null;
function library() {
  arrival ??= new Promise((resolve) => {
    const script = Object.assign(document.createElement("script"), { src: $("#plotly").href });
    script.addEventListener("load", () => resolve(true));
    script.addEventListener("error", () => resolve(false));
    document.head.append(script);
  });
  return arrival;
}
addEventListener("load", () => whenIdle(library)); // charts that nobody has come near are printed, too

/** When what has changed is on the screen; soon, where nothing is painted. */
const painted = () => new Promise((resolve) => {
  requestAnimationFrame(() => setTimeout(resolve));
  setTimeout(resolve, 100);
});

/** A panel's inside on A4, in pixels: the paper less the margins of `@page`, borders and padding. Nothing is measured before a page is laid out for
 * paper, and nothing drawn after. */
const PAPER = 652;

const root = document.documentElement;
let theme = null;
addEventListener("beforeprint", () => {
  theme ??= root.dataset.theme;
  root.dataset.theme = "light"; // for colours that are drawn, not styled
});
addEventListener("afterprint", () => {
  root.dataset.theme = theme ?? root.dataset.theme;
  theme = null;
});

/** How far below the screen a chart is drawn already. */
const NEAR = "0px 0px 400px 0px";

/** Draw into the .plot of a <figure class="chart">. `build()` gives { data, x, y, layout, revision }, x and y being axis
 * titles with their unit; it is called again for each update and each change of theme. A new `revision` resets the zoom. */
export class Chart {
  #plot; #build; #near = false; #due = false; #awaited = false; #size = {};

  constructor(figure, build) {
    this.#plot = $(".plot", figure);
    this.#build = build;
    addEventListener("themechange", () => requestAnimationFrame(() => this.draw()));
    new ResizeObserver(() => this.#resize()).observe(this.#plot);
    addEventListener("beforeprint", () => this.#print());
    addEventListener("afterprint", () => this.#drawAgain());
    new IntersectionObserver((entries) => this.#approach(entries.at(-1).isIntersecting), { rootMargin: NEAR }).observe(figure);
  }

  #approach(near) {
    this.#near = near;
    if (near && this.#due) this.draw();
  }

  #print() {
    this.#near = true;
    this.#size = { width: PAPER, height: parseFloat(getComputedStyle(this.#plot).minBlockSize) };
    this.draw();
  }

  #drawAgain() {
    this.#size = {};
    this.draw();
    this.#resize();
  }

  /** Of a chart that is far from the screen nothing is drawn until it is near. */
  draw() {
    this.#due = !this.#near;
    if (this.#due) return;
    if (window.Plotly) this.#render();
    else if (!this.#awaited) this.#await();
  }

  /** Drawn once, with all that is known by then; the rest of the page is painted before the library is run. */
  async #await() {
    this.#awaited = true;
    await painted();
    const came = await library();
    this.#awaited = false;
    if (came) this.draw();
    else this.#sayMissing();
  }

  #sayMissing() {
    this.#plot.innerHTML = `<p class="nochart">The chart library could not be loaded. The figures are in the table view.</p>`;
  }

  #render() {
    const { data, x, y, layout = {}, revision = "keep" } = this.#build();
    const base = { ...baseLayout(x, y), uirevision: revision };
    const merged = { ...base, ...layout, ...this.#size, xaxis: { ...base.xaxis, ...layout.xaxis }, yaxis: { ...base.yaxis, ...layout.yaxis } };
    window.Plotly.react(this.#plot, data, merged, { displayModeBar: false, doubleClick: "reset", responsive: false });
  }

  #resize() {
    if (window.Plotly && !this.#size.width && this.#plot.offsetHeight && this.#plot.querySelector(".main-svg")) window.Plotly.Plots.resize(this.#plot);
  }
}

const cell = (tag, text, column, scope = "") => `<${tag}${scope}${column ? ' class="num"' : ""}>${esc(text)}</${tag}>`;

function tableHtml(head, rows) {
  const heads = head.map((text, column) => cell("th", text, column, ' scope="col"')).join("");
  const body = rows.map((row) => `<tr>${row.map((text, column) => cell("td", text, column)).join("")}</tr>`).join("");
  return `<table class="table dense"><thead><tr>${heads}</tr></thead><tbody>${body}</tbody></table>`;
}

/** Every chart has a table with the same numbers; the figure's [data-twin] button swaps the two. */
export class TableTwin {
  #figure; #rows; #box = null;

  /** `rows()` gives [head, rows]. */
  constructor(figure, rows) {
    this.#figure = figure;
    this.#rows = rows;
    $("[data-twin]", figure).addEventListener("click", (event) => this.#toggle(event.currentTarget));
  }

  draw() {
    if (this.#box) this.#box.innerHTML = tableHtml(...this.#rows());
  }

  #toggle(button) {
    const on = this.#box === null;
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "Chart" : "Table";
    $(".plot", this.#figure).hidden = on;
    if (on) {
      this.#box = Object.assign(document.createElement("div"), { className: "datatable", tabIndex: 0 });
      this.#figure.append(this.#box);
      this.draw();
    } else {
      this.#box.remove();
      this.#box = null;
    }
  }
}

/** The inline sparkline, the one shape of it. */
export function sparkline(values) {
  if (values.length < 2) return "";
  const low = Math.min(...values);
  const span = Math.max(...values) - low || 1;
  const points = values.map((v, i) => [(i / (values.length - 1)) * 80, 22 - ((v - low) / span) * 20]);
  const line = points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
  const [x, y] = points.at(-1);
  return `<svg class="spark" viewBox="0 0 80 24" aria-hidden="true"><path class="area" d="M${line}L80 24L0 24Z"/><path d="M${line}"/><circle class="dot" cx="${x}" cy="${y.toFixed(1)}" r="2"/></svg>`;
}
