// The curve of a metric of the global model, one line a source.
import { $, $$, esc, press, setQuery, setText } from "../dom.js";
import { Chart, TableTwin, color, roundAxis } from "../charts.js";
import { onShortcut } from "../keys.js";
import { isLowerBetter, isShare, metric, metricLabel, smoothed } from "../format.js";
import { bestSource, hasEnded, series } from "./state.js";

const SOURCES = {
  server: { short: "server", label: "on the server's held-out data", token: "--accent", dash: "solid", width: 2.5 },
  federated: { short: "clients", label: "by the clients, on their data", token: "--c3", dash: "solid", width: 1.75 },
  fit: { short: "training", label: "in training, mean of the clients", token: "--c0", dash: "dot", width: 1.5 },
};

/** Labels of orders at neighbouring rounds stand below one another. */
const LABEL_LINES = 3;
/** Orders that say something about the curve. */
const SHOWN_ORDERS = new Set(["pause", "resume", "stop", "extend", "fork", "clone", "weigh"]);
const AXES = { round: "Round", time: "Time since the start (min)", bytes: "Traffic since the start (MB)" };

const UNITS = { accuracy: "share correct", loss: "cross-entropy, nats" };

export class MetricsPanel {
  #panel; #chart; #twin; #state = null; #view; #hidden = new Set(); #places = null; #placesOf = null; #outlook;

  /** `outlook.want` asks for the forecast of what is shown. */
  constructor(panel, outlook) {
    this.#panel = panel;
    this.#outlook = outlook;
    const query = new URLSearchParams(location.search);
    const number = (name, fallback) => (query.get(name) !== null && Number.isFinite(Number(query.get(name))) ? Number(query.get(name)) : fallback);
    this.#view = {
      name: query.get("metric"), x: query.get("x") in AXES ? query.get("x") : "round", log: query.has("log"),
      smooth: Math.min(0.95, Math.max(0, number("smooth", 0))), target: number("target", null),
    };
    const figure = $("figure", panel);
    this.#chart = new Chart(figure, () => this.#build());
    this.#twin = new TableTwin(figure, () => this.#table());
    this.#bind();
  }

  /** `at`: the round that the rest of the page shows; null: the newest. */
  draw(state, at = this.#at) {
    this.#state = state;
    this.#at = at;
    this.#offerMetrics();
    this.#redraw();
  }

  #at = null;

  /** The forecast may have come. */
  redraw() {
    this.#redraw();
  }

  #redraw() {
    if (!this.#state) return;
    this.#showLegend();
    const name = this.#name;
    this.#outlook.want(this.#state, { metric: name, source: bestSource(this.#state, name) ?? "server", target: this.#view.target });
    this.#sayOutlook();
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
    this.#bindSmoothing();
    const target = $("[data-target]", this.#panel);
    target.value = this.#view.target ?? "";
    target.addEventListener("change", () => {
      this.#view.target = target.value === "" || !Number.isFinite(target.valueAsNumber) ? null : target.valueAsNumber;
      setQuery({ target: this.#view.target });
      this.#redraw();
    });
  }

  #bindSmoothing() {
    const range = $("[data-smooth]", this.#panel);
    const shown = $("[data-smooth-shown]", this.#panel);
    range.value = this.#view.smooth;
    shown.value = this.#view.smooth;
    range.addEventListener("input", () => {
      this.#view.smooth = range.valueAsNumber;
      shown.value = range.value;
      setQuery({ smooth: this.#view.smooth || "" });
      this.#redraw();
    });
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

  /** Where a round lies on the horizontal axis: its number, or from the start to its end the minutes or the megabytes. */
  #place(round) {
    if (this.#view.x === "round" || round === 0) return round;
    const key = this.#state.rounds;
    if (this.#placesOf !== key) [this.#places, this.#placesOf] = [new Map([...key.values()].filter((r) => r.status === "committed").map((r) => [r.number, r])), key];
    const ended = this.#places.get(round);
    if (!ended) return null;
    return this.#view.x === "time" ? (ended.committedAt - this.#state.run.startedAt) / 60_000 : (ended.bytesTotal ?? 0) / 1e6;
  }

  /** The values, and over them the smoothed ones if the reader wants that. */
  #traces(source) {
    const { token, dash, width, label } = SOURCES[source];
    const points = series(this.#state, this.#name, source);
    const format = isShare(this.#name) ? ".1%" : ".3f";
    const x = points.map(([round]) => this.#place(round));
    const y = points.map(([, value]) => value);
    const mode = points.length > 1 ? "lines" : "markers";
    const trace = { x, mode, line: { color: color(token), width, dash }, marker: { color: color(token), size: 7 } };
    const raw = { ...trace, y, hovertemplate: `%{y:${format}} ${label}<extra></extra>` };
    if (!this.#view.smooth) return [raw];
    const faint = { ...raw, line: { color: color(token, 0.35), width: 1, dash }, marker: { color: color(token, 0.35), size: 5 } };
    return [faint, { ...trace, y: smoothed(y, this.#view.smooth), hovertemplate: `%{y:${format}} smoothed<extra></extra>` }];
  }

  /** The forecast of the curve that is trusted most: dotted, with its band; on the axis of rounds alone. */
  #forecast(shown) {
    const known = this.#outlook.known;
    const source = bestSource(this.#state, this.#name);
    const fits = known?.curve.length && known.metric === this.#name && known.source === source && shown.includes(source);
    if (!fits || this.#view.x !== "round" || this.#at !== null) return [];
    const { token } = SOURCES[source];
    const column = (index) => known.curve.map((point) => point[index]);
    const none = { x: column(0), mode: "lines", hoverinfo: "skip", line: { width: 0 } };
    const format = isShare(this.#name) ? ".1%" : ".3f";
    return [
      { ...none, y: column(2) },
      { ...none, y: column(3), fill: "tonexty", fillcolor: color(token, 0.12) },
      { ...none, y: column(1), hoverinfo: "all", line: { color: color(token), width: 1.5, dash: "dot" }, hovertemplate: `%{y:${format}} forecast<extra></extra>` },
    ];
  }

  #sayOutlook() {
    const { known } = this.#outlook;
    const box = $("[data-outlook]", this.#panel);
    if (hasEnded(this.#state)) setText(box, "The run has ended: there is nothing to forecast.");
    else if (known?.metric === this.#name) setText(box, this.#outlookWords(known));
  }

  #outlookWords({ curve, curve_refusal: refusal, reached, target }) {
    if (!curve.length) return `No forecast of ${metricLabel(this.#name).toLowerCase()}. ${refusal}`;
    const [round, value, low, high] = curve.at(-1);
    const text = (v) => metric(this.#name, v);
    const end = `Forecast for round ${round}: ${text(value)}, in nine cases of ten ${text(low)} to ${text(high)}.`;
    if (target === null) return end;
    const from = reached.earliest === null ? "not in this run" : `round ${reached.earliest} at the earliest`;
    const at = reached.expected === null ? (reached.earliest === null ? "" : "probably not in this run, ") : `near round ${reached.expected}, `;
    return `${end} ${text(target)}: ${at}${from}.`;
  }

  #build() {
    const name = this.#name;
    const shown = this.#sources().filter((source) => !this.#hidden.has(source)).reverse();
    const best = this.#best(shown);
    const unit = UNITS[name] ? ` (${UNITS[name]})` : "";
    const byRound = this.#view.x === "round";
    return {
      data: [...this.#forecast(shown), ...shown.flatMap((source) => this.#traces(source)), ...(best ? [best.marker] : [])],
      x: AXES[this.#view.x],
      y: metricLabel(name) + unit,
      revision: `${name} ${this.#view.x} ${this.#view.log} ${this.#state.metrics.size > 0}`,
      layout: {
        xaxis: byRound ? roundAxis(this.#state.run.numRounds) : { rangemode: "tozero" },
        yaxis: {
          type: this.#view.log ? "log" : "linear",
          tickformat: isShare(name) ? ".0%" : "",
          ...(this.#state.metrics.size ? {} : { range: [0, 1] }),
        },
        shapes: [...(byRound ? this.#notRun() : []), ...this.#lines(), ...this.#orders().map((order) => order.line)],
        annotations: [
          ...(this.#state.metrics.size ? (best ? [best.label] : []) : [this.#nothingYet()]),
          ...this.#orders().map((order) => order.label),
        ],
      },
    };
  }

  /** The target, and the round that the page shows. */
  #lines() {
    const line = { type: "line", line: { color: color("--text-2"), width: 1, dash: "dash" } };
    const { target, log } = this.#view;
    const place = this.#at === null ? null : this.#place(this.#at);
    return [
      ...(target === null || (log && target <= 0) ? [] : [{ ...line, x0: 0, x1: 1, xref: "paper", y0: target, y1: target }]),
      ...(place === null ? [] : [{ ...line, x0: place, x1: place, y0: 0, y1: 1, yref: "paper", line: { color: color("--accent"), width: 2 } }]),
    ];
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
      const x = this.#view.x === "time" ? Math.max(0, (Date.parse(command.at) - run.startedAt) / 60_000) : this.#place(command.round) ?? 0;
      places.set(x, [...(places.get(x) ?? []), this.#told(command)]);
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

  #told({ kind, label, actor, data }) {
    if (kind !== "weigh") return `${label} by ${esc(actor)}`;
    return `${data.percent ? `Weight ${data.percent} %` : "Excluded"}: ${esc(data.name)}, by ${esc(actor)}`;
  }

  #nothingYet() {
    const text = "No figures yet:<br>the first come when round 1 is done"; // in one line it is wider than a phone
    return { text, showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5, font: { size: 12, color: color("--text-3") } };
  }

  /** The best value of the most trusted source that is shown. */
  #best(shown) {
    const source = bestSource(this.#state, this.#name);
    const points = source ? series(this.#state, this.#name, source) : [];
    if (points.length < 2 || !shown.includes(source)) return null;
    const better = isLowerBetter(this.#name) ? (a, b) => a < b : (a, b) => a > b;
    const [round, value] = points.reduce((top, point) => (better(point[1], top[1]) ? point : top));
    const x = this.#place(round);
    const left = x > this.#place(points.at(-1)[0]) * 0.8;
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
    const told = (round) => orders.filter((order) => order.round === round).map((order) => this.#told(order)).join(", ");
    const head = ["Round", ...columns.map(({ name, source }) => `${metricLabel(name)}, ${SOURCES[source].short}`), ...(orders.length ? ["Orders"] : [])];
    const value = (round, { name, source }) => metric(name, this.#state.metrics.get(name).get(source).get(round));
    return [head, rounds.map((round) => [round, ...columns.map((column) => value(round, column)), ...(orders.length ? [told(round)] : [])])];
  }
}
