// Clients by round: a real table with one tab stop and arrow keys; its colours come from CSS. The server tells a window of rounds, of few clients all
// and of many the spread, who was unlike the others, and the rest in pages; what happens meanwhile is laid over it.
import { $, $$, esc, press, setHtml, setQuery, setText, who } from "../dom.js";
import { bytes, duration, number } from "../format.js";
import { onceQuiet } from "./pace.js";
import { getJson } from "./feed.js";
import { clientOf, latestCommitted, weightOf } from "./state.js";

const COLUMNS = 60;
const AGAIN_MS = 5000;
/** What comes of a round in progress is laid over many clients at most so often. */
const MANY_MS = 1000;
const HINT = "Point at a cell, or use the arrow keys. Enter opens the client.";
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
const QUANTILE_ROWS = [[1, "highest"], [0.95, "95 %"], [0.75, "75 %"], [0.5, "median"], [0.25, "25 %"], [0.05, "5 %"], [0, "lowest"]];

const clamp = (share) => Math.min(1, Math.max(0, share));
const total = ({ seconds }) => Object.values(seconds).reduce((sum, s) => sum + (s ?? 0), 0) || null;

/** A diverging value says of itself how far it is from the middle, from −1 to 1; the others are placed between the cells' extremes.
 * `at` is where a cell of the server's has it. */
const VALUES = {
  norm: {
    label: "Update norm", at: 2, of: (part) => part.normRatio, text: (v) => `${number(v, 2)} × the median`,
    diverging: (v) => -Math.log2(Math.max(v, 0.25)), ends: ["½ × the median", "2 ×"], ramp: "div turned",
  },
  cosine: {
    label: "Cosine to the aggregate", at: 3, of: (part) => part.cosine, text: (v) => number(v, 2), diverging: (v) => v, ends: ["−1", "1"], ramp: "div",
  },
  loss: { label: "Training loss", at: 4, of: (part) => part.loss, text: (v) => number(v, 3) },
  duration: { label: "Duration", at: 5, of: total, text: duration },
  bytes: { label: "Bytes sent", at: 6, of: (part) => part.bytesUp, text: bytes },
};
const FLAGGED = 7;

/** How far a value is from the median of its round, in robust standard deviations; null where all are alike. */
function zScore(value, spread, quantiles) {
  const median = spread?.quantiles[quantiles.indexOf(0.5)];
  return value === null || !spread || spread.deviation <= Math.abs(median) * 1e-9 ? null : (value - median) / spread.deviation;
}
const Z = { ends: ["−4 σ", "4 σ"], ramp: "div turned", diverging: (z) => -z / 4, text: (z) => `${z < 0 ? "−" : "+"}${number(Math.abs(z), 1)} σ from the round's median` };

/** Where a value lies between the 3rd and the 97th percentile of all, so that one outlier doesn't pale the others. */
function scaleOf(values) {
  const sorted = values.sort((a, b) => a - b);
  const at = (share) => sorted[Math.round((sorted.length - 1) * share)];
  const [low, high] = [at(0.03), at(0.97)];
  return { low, high, share: (value) => (high > low ? clamp((value - low) / (high - low)) : 0.5) };
}

const byName = (a, b) => a.name.localeCompare(b.name, "en", { numeric: true });

/** Of each round the newest attempt that has any participations. */
function columnsOf(state, known) {
  const newest = new Map(known.map((column) => [column.number, { number: column.number, attempt: column.attempt, spread: column.spread, parts: null }]));
  for (const round of state.rounds.values()) {
    if (!round.parts.size) continue;
    const column = newest.get(round.number);
    if (column && column.attempt > round.attempt) continue;
    newest.set(round.number, { number: round.number, attempt: round.attempt, spread: column?.attempt === round.attempt ? column.spread : {}, parts: round.parts });
  }
  return [...newest.values()].sort((a, b) => a.number - b.number).slice(-COLUMNS);
}

/** What is known of a client in a round: from the events, else as the server told it. */
function cellAt(column, client, told, value) {
  if (column.parts && !column.parts.has(client.id)) return null;
  const part = column.parts?.get(client.id);
  if (part) return { outcome: part.outcome, reason: part.reason, value: value.of(part), flagged: part.flagged, why: part.flagReason };
  const cell = told.get(client.id)?.get(column.number);
  return cell ? { outcome: cell[1], reason: "", value: cell[value.at], flagged: cell[FLAGGED] === 1, why: "unlike the others" } : null;
}

function shade(value, v, scale) {
  if (!value.diverging) return ["v", Math.max(0.03, scale.share(v))];
  const side = value.diverging(v);
  return [side < 0 ? "neg" : "pos", clamp(Math.abs(side))];
}

function cellHtml(row, round, cls, words, share) {
  const name = row.quantile === undefined ? `data-client="${row.id}"` : `data-quantile="${row.quantile}"`;
  return `<td role="gridcell" tabindex="-1" class="${cls}" ${name} data-round="${round}" aria-label="${esc(`${row.name}, round ${round}: ${words}`)}"${share === undefined ? "" : ` style="--v:${share.toFixed(2)}"`}></td>`;
}

function clientCell(client, column, cell, value, scale) {
  const html = (cls, words, share) => cellHtml(client, column.number, cls, words, share);
  if (!cell) return html("no", "took no part");
  if (cell.outcome === "pending") return html("cur", "in progress");
  if (cell.outcome !== "completed") return html("x", `${cell.outcome}${cell.reason ? `, ${cell.reason}` : ""}`);
  const [flag, flagged] = cell.flagged ? [" flag", `. Flagged: ${cell.why}`] : ["", ""];
  if (!Number.isFinite(cell.value)) return html(`none${flag}`, `${value.label} isn't known${flagged}`);
  const [cls, share] = shade(value, cell.value, scale);
  return html(`${cls}${flag}`, `${value.label} ${value.text(cell.value)}${flagged}`, share);
}

export class Heatmap {
  #panel; #box; #api; #open; #buttons; #name; #z = false; #state = null; #at = null; #window = null; #told = new Map();
  #page = 0; #find = ""; #wanted = ""; #later; #asked = false;

  /** `open(client, opener)` shows a client. */
  constructor(panel, api, open) {
    this.#panel = panel;
    this.#api = api;
    this.#open = open;
    this.#box = $(".heat-wrap", panel);
    this.#buttons = $$("[data-heat]", panel);
    const query = new URLSearchParams(location.search);
    this.#choose(this.#buttons.find((b) => b.dataset.heat === query.get("heat")) ?? this.#buttons[0]);
    this.#z = $("[data-z]", panel).checked = query.has("z");
    this.#page = Math.max(0, Number.parseInt(query.get("page") ?? "0", 10) || 0);
    this.#find = $("[data-find]", panel).value = query.get("find") ?? "";
    this.fetch = onceQuiet(() => this.#fetch(), AGAIN_MS);
    this.#later = onceQuiet(async () => this.#draw(), MANY_MS);
    this.#bind();
  }

  #bind() {
    $("[data-heats]", this.#panel).addEventListener("click", ({ target }) => {
      if (!target.dataset.heat) return;
      this.#choose(target);
      setQuery({ heat: target.dataset.heat });
      this.#draw();
    });
    const z = $("[data-z]", this.#panel);
    z.addEventListener("change", () => {
      this.#z = z.checked;
      setQuery({ z: z.checked ? "1" : "" });
      this.#draw();
    });
    const find = $("[data-find]", this.#panel);
    let typing = 0;
    find.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.#show({ find: find.value.trim(), page: 0 }), 200);
    });
    $("[data-pages]", this.#panel).addEventListener("click", ({ target }) => {
      const button = target.closest("button");
      if (button?.dataset.page) this.#show({ page: Math.max(1, (this.#window?.page ?? 0) + Number(button.dataset.page)) });
      else if (button) {
        find.value = "";
        this.#show({ page: 0, find: "" });
      }
    });
    this.#box.addEventListener("pointerover", ({ target }) => this.#read(target.closest("td")));
    this.#box.addEventListener("pointerleave", () => this.#read(null));
    this.#box.addEventListener("focusin", ({ target }) => this.#stopAt(target.closest("td")));
    this.#box.addEventListener("keydown", (event) => this.#move(event));
    this.#box.addEventListener("click", ({ target }) => {
      const cell = target.closest("td[data-client]");
      if (cell) this.#open(cell.dataset.client, cell);
    });
  }

  #choose(button) {
    press(this.#buttons, button);
    this.#name = button.dataset.heat;
  }

  #show({ page = this.#page, find = this.#find }) {
    [this.#page, this.#find] = [page, find];
    setQuery({ page: page || "", find });
    this.fetch.now();
  }

  draw(state) {
    if (!state) return;
    const before = this.#state;
    this.#state = state;
    const wanted = `${state.past ?? ""} ${state.past === undefined ? state.run.roundsDone : ""}`;
    const settled = state.past === before?.past && wanted === this.#wanted;
    if (!this.#asked || state.past !== before?.past) this.fetch.now();
    else if (wanted !== this.#wanted) this.fetch.soon();
    this.#wanted = wanted;
    if (settled && this.#window?.total > COLUMNS) this.#later.soon();
    else this.#draw();
  }

  /** May be asked for before there is a state to draw. */
  async #fetch() {
    this.#asked = true;
    const query = new URLSearchParams({ page: this.#page, find: this.#find });
    if (this.#state?.past !== undefined) query.set("until", this.#state.past);
    try {
      const told = await getJson(`${this.#api}/heat?${query}`);
      this.#window = told;
      this.#told = new Map(Object.entries(told.cells).map(([id, cells]) => [id, new Map(cells.map((cell) => [told.rounds[cell[0]].number, cell]))]));
      this.#draw();
    } catch (error) {
      console.warn(`Clients by round could not be fetched: ${error.message}`);
    }
  }

  /** The value that is shown; as a z-score it is one of its own. */
  #valueFor(column) {
    const value = VALUES[this.#name];
    if (!this.#z) return value;
    const spread = column?.spread[this.#name];
    const quantiles = this.#window?.quantiles ?? [];
    const z = (v) => zScore(v ?? null, spread, quantiles);
    return { ...Z, label: `${value.label},`, at: value.at, of: (part) => z(value.of(part)), z };
  }

  #rows(columns) {
    if (!this.#window) {
      const ids = new Set(columns.flatMap(({ parts }) => [...(parts ?? new Map()).keys()]));
      return ids.size > COLUMNS ? [] : [...ids].map((id) => this.#state.clients.get(id)).filter(Boolean).sort(byName);
    }
    const shown = this.#window.clients;
    if (this.#window.overview || this.#window.pages > 1 || this.#find) return shown;
    const known = new Set(shown.map(({ id }) => id));
    const fresh = columns.flatMap(({ parts }) => [...(parts ?? new Map()).keys()]).filter((id) => !known.has(id));
    return [...shown, ...[...new Set(fresh)].map((id) => this.#state.clients.get(id)).filter(Boolean)].sort(byName);
  }

  #draw() {
    if (!this.#state) return;
    const columns = columnsOf(this.#state, this.#window?.rounds ?? []);
    const rows = this.#rows(columns);
    if (!columns.length || (!this.#window && !rows.length)) return;
    const values = columns.map((column) => this.#valueFor(column));
    const grid = rows.map((client) => columns.map((column, i) => this.#cell(column, client, values[i])));
    const done = grid.flat().filter((cell) => cell?.outcome === "completed").map((cell) => cell.value);
    const spreads = this.#window?.overview ? columns.flatMap(({ spread }) => spread[this.#name]?.quantiles ?? []) : [];
    const scale = scaleOf([...done, ...(this.#z ? [] : spreads)].filter(Number.isFinite));
    const value = values[0];
    const quantiles = this.#window?.overview ? this.#quantileRows(columns, values, scale) : "";
    const clients = rows.map((client, r) => this.#row(client, columns.map((column, i) => clientCell(client, column, grid[r][i], values[i], scale)))).join("");
    this.#replace(this.#table(value, columns, quantiles + clients));
    this.#showScale(value, scale);
    this.#showPages();
  }

  #cell(column, client, value) {
    const cell = cellAt(column, client, this.#told, value);
    if (cell && value.z && !column.parts?.has(client.id)) return { ...cell, value: value.z(cell.value) };
    return cell;
  }

  #quantileRows(columns, values, scale) {
    const known = this.#window.quantiles;
    return QUANTILE_ROWS.map(([q, name]) => {
      const row = { quantile: q, name };
      const cells = columns.map((column, i) => {
        const spread = column.spread[this.#name];
        const raw = spread?.quantiles[known.indexOf(q)];
        const v = values[i].z ? values[i].z(raw) : raw;
        if (!Number.isFinite(v)) return cellHtml(row, column.number, "no", "not known");
        const [cls, share] = shade(values[i], v, scale);
        return cellHtml(row, column.number, cls, `${values[i].label} ${values[i].text(v)}`, share);
      });
      return `<tr><th scope="row"><span class="who"><span class="t mute">${name}</span></span></th>${cells.join("")}</tr>`;
    }).join("");
  }

  #row(client, cells) {
    const { percent } = weightOf(this.#state, client.id);
    const weight = percent === 100 ? "" : ` <span class="small mute">${percent ? `${percent} %` : "excluded"}</span>`;
    return `<tr><th scope="row">${who(client)}${weight}</th>${cells.join("")}</tr>`;
  }

  #table({ label }, columns, body) {
    const first = columns[0].number;
    const heads = columns.map(({ number: n }) => `<th scope="col" aria-label="Round ${n}">${n === first || n % 5 === 0 ? n : ""}</th>`).join("");
    return `<table class="heat" role="grid" aria-label="${label.replace(/,$/, "")} by client and round"><thead><tr><th scope="col"><span class="sr">Client</span></th>${heads}</tr></thead><tbody>${body}</tbody></table>`;
  }

  /** Swap the table, and keep what the reader sees: the focus, and the newest round if it was in view. */
  #replace(html) {
    if (this.#box.dataset.html === html) return;
    const { scrollLeft, clientWidth, scrollWidth } = this.#box;
    const atEnd = scrollLeft + clientWidth >= scrollWidth - 8;
    const focused = this.#box.contains(document.activeElement);
    setHtml(this.#box, html);
    this.#box.scrollLeft = atEnd ? this.#box.scrollWidth : scrollLeft;
    const stop = this.#stop();
    if (stop) stop.tabIndex = 0;
    if (focused) stop?.focus({ preventScroll: true });
  }

  /** The cell that the tab key goes to: where the reader was, else the last. */
  #stop() {
    const row = this.#at && (this.#at.client ? `[data-client="${this.#at.client}"]` : `[data-quantile="${this.#at.quantile}"]`);
    const was = row && $(`td${row}[data-round="${this.#at.round}"]`, this.#box);
    return was ?? $$("td", this.#box).at(-1);
  }

  #stopAt(cell) {
    if (!cell) return;
    $$('td[tabindex="0"]', this.#box).forEach((td) => { td.tabIndex = -1; });
    cell.tabIndex = 0;
    this.#at = { ...cell.dataset };
    this.#read(cell);
  }

  #move(event) {
    const cell = event.target.closest("td");
    if (cell && event.key === "Enter" && cell.dataset.client) {
      event.preventDefault();
      this.#open(cell.dataset.client, cell);
    }
    if (!cell || !STEPS[event.key]) return;
    event.preventDefault();
    const [down, right] = STEPS[event.key];
    const row = this.#box.querySelectorAll("tbody tr")[cell.parentNode.sectionRowIndex + down];
    const next = row?.cells[cell.cellIndex + right];
    if (!next?.matches("td")) return;
    next.focus({ preventScroll: true });
    this.#reveal(next);
  }

  /** Names stay at the left of the table: a cell behind them is not in view. */
  #reveal(cell) {
    const names = cell.parentNode.cells[0].offsetWidth;
    const { scrollLeft, clientWidth } = this.#box;
    if (cell.offsetLeft < scrollLeft + names) this.#box.scrollLeft = cell.offsetLeft - names;
    else if (cell.offsetLeft + cell.offsetWidth > scrollLeft + clientWidth) this.#box.scrollLeft = cell.offsetLeft + cell.offsetWidth - clientWidth;
    cell.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #read(cell) {
    setText($("[data-read]", this.#panel), cell?.getAttribute("aria-label") ?? HINT);
  }

  #showScale({ ends, ramp = "", text }, { low, high }) {
    const [from, to] = ends ?? (low === undefined ? ["low", "high"] : [text(low), text(high)]);
    setHtml($("[data-ramp]", this.#panel), `<span class="ramp ${ramp}">${from}<i></i>${to}</span>`);
  }

  #showPages() {
    const told = this.#window;
    const many = Boolean(told) && (told.total > COLUMNS || this.#find !== "");
    const pages = $("[data-pages]", this.#panel);
    pages.hidden = !many;
    $("[data-find]", this.#panel).hidden = !many;
    setText($("[data-left-out]", this.#panel), told?.overview ? `${number(told.total)} clients: how they were spread, and those unlike the others most often` : "");
    if (!many) return;
    $("[data-overview]", pages).setAttribute("aria-pressed", String(told.overview));
    setText($("[data-page-shown]", pages), told.overview ? `${number(told.total)} clients` : told.found ? `page ${told.page} of ${told.pages}, ${number(told.found)} clients` : "no client of that name");
    $('[data-page="-1"]', pages).disabled = told.overview || told.page <= 1;
    $('[data-page="1"]', pages).disabled = !told.overview && told.page >= told.pages;
  }
}

/** Who was unlike the others in the latest round. The notice is always there: one that came and went would move what is below it. */
export function drawAnomalies(state) {
  const round = latestCommitted(state);
  if (!round) return;
  const flagged = [...round.parts].filter(([, part]) => part.flagged);
  const item = ([id, part]) => `<li><b class="b">${esc(clientOf(state, id).name)}</b>: ${esc(part.flagReason)}</li>`;
  const title = `${flagged.length === 1 ? "One update was" : `${flagged.length} updates were`} unlike the others in round ${round.number}.`;
  const notice = $("#anomalies");
  notice.classList.toggle("warn", flagged.length > 0);
  const shown = flagged.slice(0, 5);
  const rest = flagged.length > shown.length ? `<li>and ${number(flagged.length - shown.length)} more</li>` : "";
  setHtml($("[data-list]", notice), flagged.length ? `<b class="b">${title}</b> <ul>${shown.map(item).join("")}${rest}</ul>` : "No update was unlike the others in the latest round.");
}
