// Timeline of rounds: one row a client, one bar a phase. Plain SVG, classes only.
import { $, $$, esc, press, setHtml, setQuery, setText, who } from "../dom.js";
import { duration, minute, percent } from "../format.js";
import { atWork, clientOf, currentRound, hasEnded } from "./state.js";

const ROW = 20;
const TOP = 28;
const BOTTOM = 24;
const MIN_ROUND_WIDTH = 56;
/** How many clients have a row each; and how wide it is where that isn't measured: A4 less margins, borders and names. */
const SCREEN = { most: 60 };
const PAPER = { most: 42, width: 578 };
const PHASES = [["downloading", "d"], ["training", "t"], ["uploading", "u"]];
const QUANTILES = [["slowest", 1], ["p95", 0.95], ["p75", 0.75], ["median", 0.5], ["p25", 0.25], ["fastest", 0]];

const secondsOf = (part) => PHASES.map(([phase]) => part.seconds[phase] ?? 0);
const total = (seconds) => seconds.reduce((a, b) => a + b, 0);

/** Seconds of each phase of a client that hasn't delivered: up to now, or to its failure. */
function soFar(part, end) {
  const starts = PHASES.map(([phase]) => part.since[phase] ?? null);
  return starts.map((start, i) => {
    if (start === null) return 0;
    const until = starts.slice(i + 1).find((s) => s !== null) ?? end;
    return Math.max(0, (until - start) / 1000);
  });
}

/** A client of a buffered run may have begun in an earlier round, or in the middle of this one: its bar ends where its work did. */
function bar(part, round, now) {
  const pending = part.outcome === "pending";
  const done = part.outcome === "completed";
  const end = part.endedAt ?? (pending ? now : round.closedAt ?? now);
  const seconds = done || total(secondsOf(part)) > 0 ? secondsOf(part) : soFar(part, end);
  const begun = end - total(seconds) * 1000;
  return {
    at: pending || part.endedAt ? begun : Math.min(round.startedAt, begun),
    seconds,
    lost: !done && !pending && part.outcome !== "refused",
    refused: part.outcome === "refused",
    reason: part.reason,
    round: round.number,
  };
}

/** A share of a round below which nobody is said to have held it. */
const HELD_SHARE = 0.05;

/** The way through a round that has ended: whose end came last, and for what share of the round everybody else was done before. */
export function criticalPath(round) {
  if (round.status !== "committed" || round.parts.size < 2) return null;
  const ends = [...round.parts]
    .filter(([, part]) => part.outcome !== "refused" && part.outcome !== "pending")
    .map(([client, part]) => {
      const { at, seconds } = bar(part, round, round.closedAt);
      return { client, end: Math.min(at + total(seconds) * 1000, round.closedAt ?? Infinity), lost: part.outcome !== "completed" };
    })
    .sort((a, b) => a.end - b.end);
  if (ends.length < 2) return null;
  const [before, last] = ends.slice(-2);
  const whole = end(round, 0) - round.startedAt;
  const share = whole > 0 ? Math.max(0, last.end - Math.max(before.end, round.startedAt)) / whole : 0;
  return { round: round.number, client: last.client, share, lost: last.lost };
}

/** Of the rounds shown: the last one in words, and who held most of them. */
function criticalWords(state, paths) {
  const held = paths.filter(({ share }) => share >= HELD_SHARE);
  const last = paths.at(-1);
  if (!last) return null;
  const name = (client) => clientOf(state, client).name;
  const now = last.share >= HELD_SHARE ? `${percent(last.share, 0)} of round ${last.round} waited for ${name(last.client)}${last.lost ? ", which dropped out" : ""}.` : `No client held round ${last.round} alone.`;
  const counts = new Map();
  for (const { client } of held) counts.set(client, (counts.get(client) ?? 0) + 1);
  const [most, times] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? [null, 0];
  return times > 1 ? `${now} ${name(most)} held ${times} of the ${paths.length} rounds shown.` : now;
}

/** Null if they are more than have a row each. */
function clientRows(state, rounds, now, most) {
  if (new Set(rounds.flatMap(({ parts }) => [...parts.keys()])).size > most) return null;
  const rows = new Map();
  for (const round of rounds) {
    for (const [id, part] of round.parts) {
      if (!rows.has(id)) rows.set(id, []);
      rows.get(id).push({ ...bar(part, round, now), client: id });
    }
  }
  return [...rows]
    .map(([id, bars]) => ({ client: state.clients.get(id), bars }))
    .filter((row) => row.client)
    .sort((a, b) => a.client.name.localeCompare(b.client.name, "en", { numeric: true }));
}

/** By round that has ended, what doesn't change any more. */
const known = new WeakMap();
function once(round, name, make) {
  if (!round.endedAt) return make();
  if (!known.has(round)) known.set(round, {});
  const kept = known.get(round);
  return (kept[name] ??= { value: make() }).value;
}

const byDuration = (round, now) => [...round.parts.values()].map((part) => bar(part, round, now)).sort((a, b) => total(a.seconds) - total(b.seconds));

/** Too many clients for a row each: the distribution of their times instead. */
function quantileRows(rounds, now) {
  const sorted = rounds.map((round) => once(round, "bars", () => byDuration(round, now)));
  return QUANTILES.map(([name, q]) => ({
    name,
    bars: sorted.filter((bars) => bars.length).map((bars) => bars[Math.round((bars.length - 1) * q)]),
  }));
}

const end = (round, now) => round.endedAt ?? round.committedAt ?? round.closedAt ?? now;

function barSvg({ at, seconds, lost, refused, reason, client, round }, y, x, scale, { path, found }) {
  let left = x(at);
  let svg = "";
  PHASES.forEach(([, cls], i) => {
    if (!seconds[i]) return;
    const width = Math.max(1, seconds[i] * 1000 * scale - 0.8);
    svg += `<rect class="${lost ? "x" : cls}" x="${left.toFixed(1)}" y="${y + 6}" width="${width.toFixed(1)}" height="8" rx="1.5"/>`;
    left += seconds[i] * 1000 * scale;
  });
  const why = reason ? `: ${reason}` : "";
  const words = refused ? `refused${why}` : lost ? `dropped out after ${duration(total(seconds))}${why}` : PHASES.map(([phase], i) => `${phase} ${duration(seconds[i])}`).join(", ");
  const cross = lost ? `<path class="xx" d="M${(left + 2).toFixed(1)} ${y + 7}l6 6m0 -6l-6 6"/>` : "";
  const [from, to] = [x(at), left];
  const frame = (cls) => `<rect class="${cls}" x="${(from - 2).toFixed(1)}" y="${y + 3}" width="${Math.max(6, to - from + 4).toFixed(1)}" height="14" rx="3"/>`;
  const held = client && path?.client === client && path.share >= HELD_SHARE;
  const marks = `${held ? frame("held") : ""}${client && found === `${client} ${round}` ? frame("found") : ""}`;
  const title = `<title>${esc(held ? `${words}; ${percent(path.share, 0)} of the round waited for it` : words)}</title>`;
  if (!client || !(lost || refused)) return `<g>${svg}${cross}${marks}${title}</g>`;
  return `<a href="#events" data-log-client="${client}" data-log-round="${round}" aria-label="${esc(`Round ${round}: ${words}. Show in the log`)}">${svg || `<rect class="x" x="${from.toFixed(1)}" y="${y + 6}" width="4" height="8"/>`}${cross}${marks}${title}</a>`;
}

function roundSvg(round, index, { x, now, height, lane, named }) {
  const [left, right] = [x(round.startedAt), x(end(round, now))];
  const width = right - left;
  const band = index % 2 === 0 ? `<rect class="band" x="${left.toFixed(1)}" y="0" width="${Math.max(0, width).toFixed(1)}" height="${height - BOTTOM}"/>` : "";
  const work = (from, to, cls, words) =>
    from && to ? `<rect class="${cls}" x="${x(from).toFixed(1)}" y="${TOP}" width="${Math.max(1.5, x(to) - x(from)).toFixed(1)}" height="${lane}"><title>Round ${round.number}: ${words}, ${duration((to - from) / 1000)}</title></rect>` : "";
  const text = (words, y) => (index % named ? "" : `<text x="${(left + 6).toFixed(1)}" y="${y}">${words}</text>`);
  const label = `${width > 70 ? "Round " : ""}${round.number}${round.status === "abandoned" ? " (repeated)" : ""}`;
  return `${band}${text(label, 18)}${work(round.closedAt, round.committedAt, "agg", "aggregation")}${work(round.committedAt, round.endedAt, "ev", "evaluation")}${text(minute(round.startedAt), height - 8)}`;
}

export class Timeline {
  #box; #count; #state = null; #found = ""; #panel; #medium = SCREEN;

  /** `openLog(client, round)` shows what the log says of a bar. */
  constructor(panel, openLog) {
    this.#panel = panel;
    this.#box = $(".gantt", panel);
    this.#box.addEventListener("click", (event) => {
      const link = event.target.closest("[data-log-client]");
      if (!link) return;
      event.preventDefault();
      openLog(link.dataset.logClient, Number(link.dataset.logRound));
    });
    const buttons = $$("[data-rounds] button", panel);
    const asked = new URLSearchParams(location.search).get("rounds");
    this.#choose(buttons, buttons.find((b) => b.dataset.n === asked) ?? buttons[1]);
    $("[data-rounds]", panel).addEventListener("click", ({ target }) => {
      if (!target.dataset.n) return;
      this.#choose(buttons, target);
      setQuery({ rounds: target.dataset.n });
      this.draw(this.#state);
    });
    new ResizeObserver(() => this.draw(this.#state)).observe($(".canvas", this.#box));
    addEventListener("beforeprint", () => this.#drawOn(PAPER));
    addEventListener("afterprint", () => this.#drawOn(SCREEN));
  }

  #choose(buttons, button) {
    press(buttons, button);
    this.#count = Number(button.dataset.n);
  }

  /** Mark the bar of a client, and go there. */
  find(client, round) {
    this.#found = `${client} ${round}`;
    this.draw(this.#state);
    $(".found", this.#box)?.scrollIntoView({ block: "center", inline: "center" });
    $(".canvas", this.#box).focus({ preventScroll: true });
  }

  #drawOn(medium) {
    this.#medium = medium;
    this.draw(this.#state);
  }

  draw(state) {
    if (!state) return;
    this.#state = state;
    const current = currentRound(state);
    const all = [...state.rounds.values()].map((round) => (round === current ? { ...round, parts: atWork(state) } : round));
    const rounds = all.filter((r) => r.parts.size).slice(-this.#count);
    if (!rounds.length) return;
    const now = hasEnded(state) ? end(current, state.run.endedAt) : Date.now();
    const rows = clientRows(state, rounds, now, this.#medium.most);
    const paths = rounds.map((round) => once(round, "path", () => criticalPath(round))).filter(Boolean);
    setText($("[data-critical]", this.#panel), criticalWords(state, paths) ?? "Who held a round longest is told when it has ended.");
    this.#paths = new Map(paths.map((path) => [path.round, path]));
    this.#render(rows ?? quantileRows(rounds, now), rounds, now, !hasEnded(state));
  }

  #paths = new Map();

  #render(rows, rounds, now, running) {
    setHtml($(".names", this.#box), rows.map((row) => `<li>${row.client ? who(row.client) : row.name}</li>`).join(""));
    const canvas = $(".canvas", this.#box);
    const first = rounds[0].startedAt;
    const last = Math.max(end(rounds.at(-1), now), running ? now : 0);
    const width = this.#medium.width ?? Math.max(canvas.clientWidth, rounds.length * MIN_ROUND_WIDTH);
    const named = Math.ceil((rounds.length * MIN_ROUND_WIDTH) / width);
    const scale = (width - 12) / Math.max(1, (last - first) * (running ? 1.06 : 1));
    const x = (ms) => (ms - first) * scale;
    const lane = rows.length * ROW;
    const height = TOP + lane + BOTTOM;
    let svg = rounds.map((round, i) => roundSvg(round, i, { x, now, height, lane, named })).join("");
    rows.forEach((row, i) => {
      const y = TOP + i * ROW;
      svg += `<line class="rule" x1="0" x2="${width}" y1="${y + 0.5}" y2="${y + 0.5}"/>${row.bars.map((b) => barSvg(b, y, x, scale, { path: this.#paths.get(b.round), found: this.#found })).join("")}`;
    });
    if (running) svg += `<line class="now" x1="${x(now).toFixed(1)}" x2="${x(now).toFixed(1)}" y1="4" y2="${height - BOTTOM}"/>`;
    const atEnd = canvas.scrollLeft + canvas.clientWidth >= canvas.scrollWidth - 8;
    const left = canvas.scrollLeft;
    const focused = document.activeElement?.closest?.("[data-log-client]");
    canvas.innerHTML = `<svg width="${width}" height="${height}" role="group" aria-label="Timeline of the last ${rounds.length} rounds">${svg}</svg>`;
    canvas.scrollLeft = atEnd ? canvas.scrollWidth : left;
    if (focused) $(`[data-log-client="${focused.dataset.logClient}"][data-log-round="${focused.dataset.logRound}"]`, canvas)?.focus({ preventScroll: true });
  }
}
