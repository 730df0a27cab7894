// Clients by round: a real table with one tab stop and arrow keys; its colours come from CSS.
import { $, $$, esc, press, setHtml, setQuery, setText, who } from "../dom.js";
import { bytes, duration, number } from "../format.js";
import { clientOf, latestCommitted } from "./state.js";

const MOST_ROUNDS = 60;
const MOST_CLIENTS = 60;
const HINT = "Point at a cell, or use the arrow keys.";
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

const clamp = (share) => Math.min(1, Math.max(0, share));
const total = ({ seconds }) => Object.values(seconds).reduce((sum, s) => sum + (s ?? 0), 0) || null;

/** A diverging value says of itself how far it is from the middle, from −1 to 1; the others are placed between the cells' extremes. */
const VALUES = {
  norm: {
    label: "Update norm", of: (part) => part.normRatio, text: (v) => `${number(v, 2)} × the median`,
    diverging: (v) => -Math.log2(Math.max(v, 0.25)), ends: ["½ × the median", "2 ×"], ramp: "div turned",
  },
  cosine: {
    label: "Cosine to the aggregate", of: (part) => part.cosine, text: (v) => number(v, 2), diverging: (v) => v, ends: ["−1", "1"], ramp: "div",
  },
  loss: { label: "Training loss", of: (part) => part.loss, text: (v) => number(v, 3) },
  duration: { label: "Duration", of: total, text: duration },
  bytes: { label: "Bytes sent", of: (part) => part.bytesUp, text: bytes },
};

/** Where a value lies between the 3rd and the 97th percentile of all, so that one outlier doesn't pale the others. */
function scaleOf(values) {
  const sorted = values.sort((a, b) => a - b);
  const at = (share) => sorted[Math.round((sorted.length - 1) * share)];
  const [low, high] = [at(0.03), at(0.97)];
  return { low, high, share: (value) => (high > low ? clamp((value - low) / (high - low)) : 0.5) };
}

/** Of each round the newest attempt. */
function columnsOf(state) {
  const newest = new Map();
  for (const round of state.rounds.values()) if (round.parts.size) newest.set(round.number, round);
  return [...newest.values()].sort((a, b) => a.number - b.number).slice(-MOST_ROUNDS);
}

const byName = (a, b) => a.name.localeCompare(b.name, "en", { numeric: true });

/** Of more clients than there is room for, those that were flagged most often. */
function rowsOf(state, columns) {
  const flags = new Map();
  for (const { parts } of columns) for (const [id, part] of parts) flags.set(id, (flags.get(id) ?? 0) + Number(part.flagged));
  const clients = [...flags.keys()].map((id) => state.clients.get(id)).filter(Boolean).sort(byName);
  const shown = clients.toSorted((a, b) => flags.get(b.id) - flags.get(a.id)).slice(0, MOST_CLIENTS).sort(byName);
  return { shown, all: clients.length };
}

function cellOf(client, round, part, value, scale) {
  const cell = (cls, words, share) =>
    `<td role="gridcell" tabindex="-1" class="${cls}" data-client="${client.id}" data-round="${round.number}" aria-label="${esc(`${client.name}, round ${round.number}: ${words}`)}"${share === undefined ? "" : ` style="--v:${share.toFixed(2)}"`}></td>`;
  if (!part) return cell("no", "took no part");
  if (part.outcome === "pending") return cell("cur", "in progress");
  if (part.outcome !== "completed") return cell("x", `${part.outcome}${part.reason ? `, ${part.reason}` : ""}`);
  const flagged = part.flagged ? `. Flagged: ${part.flagReason}` : "";
  const flag = part.flagged ? " flag" : "";
  const v = value.of(part);
  if (!Number.isFinite(v)) return cell(`none${flag}`, `${value.label} isn't known${flagged}`);
  const words = `${value.label} ${value.text(v)}${flagged}`;
  if (!value.diverging) return cell(`v${flag}`, words, Math.max(0.03, scale.share(v)));
  const side = value.diverging(v);
  return cell(`${side < 0 ? "neg" : "pos"}${flag}`, words, clamp(Math.abs(side)));
}

function tableHtml({ label }, rows, columns, cell) {
  const first = columns[0].number;
  const heads = columns.map(({ number: n }) => `<th scope="col" aria-label="Round ${n}">${n === first || n % 5 === 0 ? n : ""}</th>`).join("");
  const body = rows.map((client) => `<tr><th scope="row">${who(client)}</th>${columns.map((round) => cell(client, round)).join("")}</tr>`).join("");
  return `<table class="heat" role="grid" aria-label="${label} by client and round"><thead><tr><th scope="col"><span class="sr">Client</span></th>${heads}</tr></thead><tbody>${body}</tbody></table>`;
}

export class Heatmap {
  #panel; #box; #buttons; #value; #state = null; #at = null;

  constructor(panel) {
    this.#panel = panel;
    this.#box = $(".heat-wrap", panel);
    this.#buttons = $$("[data-heat]", panel);
    const asked = new URLSearchParams(location.search).get("heat");
    this.#choose(this.#buttons.find((b) => b.dataset.heat === asked) ?? this.#buttons[0]);
    this.#bind();
  }

  #bind() {
    $("[data-heats]", this.#panel).addEventListener("click", ({ target }) => {
      if (!target.dataset.heat) return;
      this.#choose(target);
      setQuery({ heat: target.dataset.heat });
      this.draw(this.#state);
    });
    this.#box.addEventListener("pointerover", ({ target }) => this.#read(target.closest("td")));
    this.#box.addEventListener("pointerleave", () => this.#read(null));
    this.#box.addEventListener("focusin", ({ target }) => this.#stopAt(target.closest("td")));
    this.#box.addEventListener("keydown", (event) => this.#move(event));
  }

  #choose(button) {
    press(this.#buttons, button);
    this.#value = VALUES[button.dataset.heat];
  }

  draw(state) {
    if (!state) return;
    this.#state = state;
    const columns = columnsOf(state);
    if (!columns.length) return;
    const { shown, all } = rowsOf(state, columns);
    const done = columns.flatMap(({ parts }) => [...parts.values()]).filter((part) => part.outcome === "completed");
    const scale = scaleOf(done.map((part) => this.#value.of(part)).filter(Number.isFinite));
    const cell = (client, round) => cellOf(client, round, round.parts.get(client.id), this.#value, scale);
    this.#replace(tableHtml(this.#value, shown, columns, cell));
    this.#showScale(scale);
    setText($("[data-left-out]", this.#panel), all > shown.length ? `${shown.length} of ${all} clients: those flagged most often` : "");
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
    const was = this.#at && $(`td[data-client="${this.#at.client}"][data-round="${this.#at.round}"]`, this.#box);
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
    if (!cell || !STEPS[event.key]) return;
    event.preventDefault();
    const [down, right] = STEPS[event.key];
    const row = this.#box.querySelectorAll("tbody tr")[cell.parentNode.sectionRowIndex + down];
    const next = row?.cells[cell.cellIndex + right];
    if (!next?.matches("td")) return;
    next.focus({ preventScroll: true });
    this.#reveal(next);
  }

  /** Scroll sideways until the cell isn't under the clients' names, which stay where they are. */
  #reveal(cell) {
    const names = cell.parentNode.cells[0].offsetWidth;
    const { scrollLeft, clientWidth } = this.#box;
    if (cell.offsetLeft - names < scrollLeft) this.#box.scrollLeft = cell.offsetLeft - names;
    else if (cell.offsetLeft + cell.offsetWidth > scrollLeft + clientWidth) this.#box.scrollLeft = cell.offsetLeft + cell.offsetWidth - clientWidth;
    cell.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #read(cell) {
    setText($("[data-read]", this.#panel), cell?.getAttribute("aria-label") ?? HINT);
  }

  #showScale({ low, high }) {
    const { ends, ramp = "", text } = this.#value;
    const [from, to] = ends ?? (low === undefined ? ["low", "high"] : [text(low), text(high)]);
    setHtml($("[data-ramp]", this.#panel), `<span class="ramp ${ramp}">${from}<i></i>${to}</span>`);
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
  setHtml($("[data-list]", notice), flagged.length ? `<b class="b">${title}</b> <ul>${flagged.map(item).join("")}</ul>` : "No update was unlike the others in the latest round.");
}
