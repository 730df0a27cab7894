// The curve of a metric of the global model, one line a source.
import { $, $$, esc, press, setQuery } from "../dom.js";
import { Chart, TableTwin, color, roundAxis } from "../charts.js";
import { onShortcut } from "../keys.js";
import { isLowerBetter, isShare, metric, metricLabel } from "../format.js";
import { bestSource, hasEnded, series } from "./state.js";

const SOURCES = {
  server: { short: "server", label: "on the server's held-out data", token: "--accent", dash: "solid", width: 2.5 },
  federated: { short: "clients", label: "by the clients, on their data", token: "--c3", dash: "solid", width: 1.75 },
  fit: { short: "training", label: "in training, mean of the clients", token: "--c0", dash: "dot", width: 1.5 },
};

/** Labels of orders at neighbouring rounds stand below one another. */
const LABEL_LINES = 3;
/** Orders that say something about the curve. */
const SHOWN_ORDERS = new Set(["pause", "resume", "stop", "extend", "fork", "clone"]);

const UNITS = { accuracy: "share correct", loss: "cross-entropy, nats" };

export class MetricsPanel {
  #panel; #chart; #twin; #state = null; #view; #hidden = new Set();

  constructor(panel) {
    this.#panel = panel;
    const query = new URLSearchParams(location.search);
    this.#view = { name: query.get("metric"), x: query.get("x") === "time" ? "time" : "round", log: query.has("log") };
    const figure = $("figure", panel);
    this.#chart = new Chart(figure, () => this.#build());
    this.#twin = new TableTwin(figure, () => this.#table());
    this.#bind();
  }

  draw(state) {
    this.#state = state;
    this.#offerMetrics();
    this.#redraw();
  }

  #redraw() {
    if (!this.#state) return;
    this.#showLegend();
    this.#chart.draw();
    this.#twin.draw();
  }

  get #name() {
    const { metrics } = this.#state;
    if (metrics.has(this.#view.name)) return this.#view.name;
    return metrics.size === 0 || metrics.has("accuracy") ? "accuracy" : metrics.keys().next().value;
  }

  #bind() {
    $("[data-metrics]", this.#panel).addEventListener("click", ({ target }) => this.#set("metric", "name", target.dataset.metric));
    $("[data-axes]", this.#panel).addEventListener("click", ({ target }) => this.#set("x", "x", target.dataset.x));
    $(".legend", this.#panel).addEventListener("click", (event) => this.#toggleSource(event.target.closest("button")));
    const log = $("[data-log]", this.#panel);
    log.checked = this.#view.log;
    log.addEventListener("change", () => {
      this.#view.log = log.checked;
      setQuery({ log: log.checked ? "1" : "" });
      this.#redraw();
    });
    onShortcut((key) => { if (key === "l") log.click(); });
  }

  #set(parameter, field, value) {
    if (!value) return;
    this.#view[field] = value;
    setQuery({ [parameter]: value });
    this.draw(this.#state);
  }

  #toggleSource(button) {
    if (!button) return;
    const source = button.dataset.source;
    if (!this.#hidden.delete(source)) this.#hidden.add(source);
    this.#redraw();
  }

  #offerMetrics() {
    const box = $("[data-metrics]", this.#panel);
    const names = [...this.#state.metrics.keys()].sort();
    if (!names.length) names.push("accuracy", "loss");
    if (box.dataset.names !== names.join()) {
      box.dataset.names = names.join();
      box.replaceChildren(...names.map((name) => {
        const button = Object.assign(document.createElement("button"), { type: "button", textContent: metricLabel(name) });
        button.dataset.metric = name;
        return button;
      }));
    }
    press($$("button", box), $(`[data-metric="${CSS.escape(this.#name)}"]`, box));
    const axes = $("[data-axes]", this.#panel);
    press($$("button", axes), $(`[data-x="${this.#view.x}"]`, axes));
  }

  #showLegend() {
    for (const button of $$(".legend button", this.#panel)) {
      const { source } = button.dataset;
      button.hidden = !this.#state.metrics.get(this.#name)?.has(source);
      button.setAttribute("aria-pressed", String(!this.#hidden.has(source)));
    }
  }

  #sources() {
    return Object.keys(SOURCES).filter((source) => this.#state.metrics.get(this.#name)?.has(source));
  }

  /** Where a round lies on the horizontal axis: its number, or minutes from the start to its end. */
  #at(round) {
    if (this.#view.x === "round") return round;
    if (round === 0) return 0;
    const ended = [...this.#state.rounds.values()].find((r) => r.number === round && r.status === "committed");
    return ended ? (ended.committedAt - this.#state.run.startedAt) / 60_000 : null;
  }

  #trace(source) {
    const { token, dash, width, label } = SOURCES[source];
    const points = series(this.#state, this.#name, source);
    const format = isShare(this.#name) ? ".1%" : ".3f";
    return {
      x: points.map(([round]) => this.#at(round)),
      y: points.map(([, value]) => value),
      mode: points.length > 1 ? "lines" : "markers",
      line: { color: color(token), width, dash },
      marker: { color: color(token), size: 7 },
      hovertemplate: `%{y:${format}} ${label}<extra></extra>`,
    };
  }

  #build() {
    const name = this.#name;
    const shown = this.#sources().filter((source) => !this.#hidden.has(source)).reverse();
    const best = this.#best(shown);
    const unit = UNITS[name] ? ` (${UNITS[name]})` : "";
    const byRound = this.#view.x === "round";
    return {
      data: [...shown.map((source) => this.#trace(source)), ...(best ? [best.marker] : [])],
      x: byRound ? "Round" : "Time since the start (min)",
      y: metricLabel(name) + unit,
      revision: `${name} ${this.#view.x} ${this.#view.log} ${this.#state.metrics.size > 0}`,
      layout: {
        xaxis: byRound ? roundAxis(this.#state.run.numRounds) : { rangemode: "tozero" },
        yaxis: {
          type: this.#view.log ? "log" : "linear",
          tickformat: isShare(name) ? ".0%" : "",
          ...(this.#state.metrics.size ? {} : { range: [0, 1] }),
        },
        shapes: [...(byRound ? this.#notRun() : []), ...this.#orders().map((order) => order.line)],
        annotations: [
          ...(this.#state.metrics.size ? (best ? [best.label] : []) : [this.#nothingYet()]),
          ...this.#orders().map((order) => order.label),
        ],
      },
    };
  }

  #notRun() {
    const { roundsDone, numRounds } = this.#state.run;
    if (hasEnded(this.#state) && roundsDone === numRounds) return [];
    return [{
      type: "rect", x0: roundsDone, x1: numRounds, y0: 0, y1: 1, yref: "paper", layer: "below",
      fillcolor: color("--c0", 0.07), line: { width: 0 },
    }];
  }

  /** What people did to the run, where they did it; that of one place in one label. */
  #orders() {
    const places = new Map();
    const { commands, run } = this.#state;
    for (const command of commands.filter(({ kind }) => SHOWN_ORDERS.has(kind))) {
      const x = this.#view.x === "round" ? command.round : Math.max(0, (Date.parse(command.at) - run.startedAt) / 60_000);
      places.set(x, [...(places.get(x) ?? []), `${command.label} by ${esc(command.actor)}`]);
    }
    const kinds = (words) => [...new Set(words.map((word) => word.split(" ")[0]))].join(", ");
    return [...places].map(([x, words], place) => ({
      line: { type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper", line: { color: color("--text-3"), width: 1, dash: "dot" } },
      label: {
        x, y: 1 - (place % LABEL_LINES) * 0.07, yref: "paper", text: kinds(words), hovertext: words.join("<br>"), showarrow: false,
        xanchor: "left", yanchor: "top", xshift: 3, font: { size: 11, color: color("--text-2") }, bgcolor: color("--surface", 0.8),
      },
    }));
  }

  #nothingYet() {
    const text = "No figures yet: the first come when round 1 is done";
    return { text, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { size: 12, color: color("--text-3") } };
  }

  /** The best value of the most trusted source that is shown. */
  #best(shown) {
    const source = bestSource(this.#state, this.#name);
    const points = source ? series(this.#state, this.#name, source) : [];
    if (points.length < 2 || !shown.includes(source)) return null;
    const better = isLowerBetter(this.#name) ? (a, b) => a < b : (a, b) => a > b;
    const [round, value] = points.reduce((top, point) => (better(point[1], top[1]) ? point : top));
    const x = this.#at(round);
    const left = x > this.#at(points.at(-1)[0]) * 0.8;
    return {
      marker: {
        x: [x], y: [value], mode: "markers", hoverinfo: "skip", cliponaxis: false,
        marker: { symbol: "diamond", size: 9, color: color("--surface"), line: { color: color("--accent"), width: 2 } },
      },
      label: {
        x, y: this.#view.log ? Math.log10(value) : value, text: `best ${metric(this.#name, value)}`, showarrow: false,
        xanchor: left ? "right" : "left", xshift: left ? -10 : 10, yshift: isLowerBetter(this.#name) ? 16 : -14,
        bgcolor: color("--surface", 0.8), font: { size: 11, color: color("--text") },
      },
    };
  }

  #table() {
    const names = [...this.#state.metrics.keys()].sort();
    const columns = names.flatMap((name) => Object.keys(SOURCES).filter((s) => this.#state.metrics.get(name).has(s)).map((source) => ({ name, source })));
    const rounds = [...new Set(columns.flatMap(({ name, source }) => [...this.#state.metrics.get(name).get(source).keys()]))].sort((a, b) => b - a);
    const orders = this.#state.commands.filter(({ kind }) => SHOWN_ORDERS.has(kind));
    const told = (round) => orders.filter((order) => order.round === round).map(({ label, actor }) => `${label} by ${actor}`).join(", ");
    const head = ["Round", ...columns.map(({ name, source }) => `${metricLabel(name)}, ${SOURCES[source].short}`), ...(orders.length ? ["Orders"] : [])];
    const value = (round, { name, source }) => metric(name, this.#state.metrics.get(name).get(source).get(round));
    return [head, rounds.map((round) => [round, ...columns.map((column) => value(round, column)), ...(orders.length ? [told(round)] : [])])];
  }
}
