// A client in this run: its traces beside those of the others, its last rounds, and what it counts for.
import { $, esc, setHtml, setQuery, setText, who } from "../dom.js";
import { bytes, duration, number } from "../format.js";
import { getJson } from "./feed.js";
import { hasEnded, weightOf } from "./state.js";

const LAST = 12;
const TRACES = [
  ["norm", 1, "Update norm", (v) => `${number(v, 2)} × the median`],
  ["cosine", 2, "Cosine to the aggregate", (v) => number(v, 2)],
  ["loss", 3, "Training loss", (v) => number(v, 3)],
  ["duration", 4, "Duration", duration],
  ["bytes", 5, "Bytes sent", bytes],
];
const [W, H] = [300, 56];

/** The client's line on the band in which four of five of the others were. */
function traceSvg(rounds, name, index, quantiles, round) {
  const [lowAt, highAt] = [quantiles.indexOf(0.1), quantiles.indexOf(0.9)];
  const points = rounds.map((one) => ({ n: one.number, v: one.cell[index], low: one.spread[name]?.quantiles[lowAt], high: one.spread[name]?.quantiles[highAt] }));
  const values = points.flatMap(({ v, low, high }) => [v, low, high]).filter(Number.isFinite);
  if (!values.length) return `<svg viewBox="0 0 ${W} ${H}" aria-hidden="true"></svg>`;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const [first, last] = [points[0].n, points.at(-1).n];
  const x = (n) => (last > first ? ((n - first) / (last - first)) * W : W / 2).toFixed(1);
  const y = (v) => (H - 4 - ((v - low) / (high - low || 1)) * (H - 8)).toFixed(1);
  const banded = points.filter((p) => Number.isFinite(p.low));
  const band = banded.length ? `<path class="band" d="M${[...banded.map((p) => `${x(p.n)} ${y(p.high)}`), ...banded.toReversed().map((p) => `${x(p.n)} ${y(p.low)}`)].join("L")}Z"/>` : "";
  let path = "";
  let open = false;
  for (const { n, v } of points) {
    if (!Number.isFinite(v)) open = false;
    else {
      path += `${open ? "L" : "M"}${x(n)} ${y(v)}${open ? "" : "h.01"}`;
      open = true;
    }
  }
  const mark = round >= first && round <= last ? `<path class="mark" d="M${x(round)} 0V${H}"/>` : "";
  return `<svg viewBox="0 0 ${W} ${H}" preserveAspectRatio="none" aria-hidden="true">${band}${mark}<path class="line" d="${path}"/></svg>`;
}

function lastRows(rounds) {
  return rounds.slice(-LAST).reverse().map(({ number: n, attempt, cell, reason, flag_reason: flag }) => {
    const [outcome, norm, cosine, loss, seconds] = cell;
    return `<tr><td>${n}${attempt > 1 ? `/${attempt}` : ""}</td><td>${esc(outcome)}${reason || flag ? `<br><span class="small mute">${esc(reason || flag)}</span>` : ""}</td><td class="num">${number(norm, 2)}</td><td class="num">${number(cosine, 2)}</td><td class="num">${number(loss, 3)}</td><td class="num">${duration(seconds)}</td></tr>`;
  }).join("");
}

export class Drawer {
  #dialog; #api; #urlOf; #weighs; #client = null; #opener = null; #state = null; #told = null;

  /** `weighs`: "" where the reader may not, "no" where the rule only lets clients be excluded, "less". */
  constructor(dialog, { api, urlOf, weighs }) {
    this.#dialog = dialog;
    this.#api = api;
    this.#urlOf = urlOf;
    this.#weighs = weighs;
    dialog.addEventListener("close", () => this.#closed());
    dialog.addEventListener("keydown", (event) => { if (event.key === "Escape") dialog.close(); });
    dialog.addEventListener("click", ({ target }) => this.#prepare(target.closest("[data-dialog]")));
    const asked = new URLSearchParams(location.search).get("client");
    if (/^[0-9a-f-]{36}$/.test(asked ?? "")) this.#client = asked;
    addEventListener("popstate", () => {
      const client = new URLSearchParams(location.search).get("client");
      if (client) this.open(client, null, { push: false });
      else if (dialog.open) dialog.close();
    });
  }

  open(client, opener, { push = true } = {}) {
    this.#client = client;
    this.#opener = opener;
    if (push) history.pushState(history.state, "", location.href);
    setQuery({ client });
    this.#fetch();
  }

  /** The page has changed: what is said of weights may have, too. */
  draw(state) {
    const first = this.#state === null;
    const changed = state.run.roundsDone !== this.#state?.run.roundsDone || state.commands !== this.#state?.commands || state.past !== this.#state?.past;
    this.#state = state;
    if (first && this.#client) this.#fetch();
    else if (changed && this.#dialog.open && !this.#dialog.contains(document.activeElement)) this.#fetch();
  }

  async #fetch() {
    const client = this.#client;
    try {
      const told = await getJson(`${this.#api}/clients/${client}`);
      if (client !== this.#client) return;
      this.#told = told;
      this.#show();
    } catch (error) {
      console.warn(`The client could not be fetched: ${error.message}`);
    }
  }

  #show() {
    const { client, rounds, quantiles } = this.#told;
    setHtml($("h2", this.#dialog), who(client));
    const last = rounds.at(-1);
    const traces = TRACES.map(([name, index, label, text]) => {
      const now = rounds.findLast(({ cell, number: n }) => Number.isFinite(cell[index]) && (this.#state.past === undefined || n <= this.#state.past));
      return `<div class="trace"><div class="row"><span>${label}</span><span class="mute">${now ? `${text(now.cell[index])} in round ${now.number}` : "not known"}</span></div>${traceSvg(rounds, name, index, quantiles, this.#state.past ?? -1)}</div>`;
    }).join("");
    const body = last
      ? `<p class="small">Took part in ${number(rounds.length)} rounds, answered in ${number(rounds.filter(({ cell }) => cell[0] === "completed").length)}. The band holds four of five of the others.</p>${traces}<div class="table-wrap" tabindex="0"><table class="table dense"><thead><tr><th scope="col">Round</th><th scope="col">Outcome</th><th scope="col" class="num">Norm</th><th scope="col" class="num">Cosine</th><th scope="col" class="num">Loss</th><th scope="col" class="num">Time</th></tr></thead><tbody>${lastRows(rounds)}</tbody></table></div>`
      : "<p>It has taken no part in this run yet.</p>";
    setHtml($("[data-body]", this.#dialog), `${body}${this.#weight(client)}<p><a href="${this.#urlOf(client.id)}">All about the client</a></p>`);
    if (!this.#dialog.open) {
      this.#dialog.show();
      this.#dialog.focus();
    }
  }

  #weight(client) {
    const order = weightOf(this.#state, client.id);
    const words = order.percent === 100 ? "It counts in full." : `${order.percent ? `It counts for ${order.percent} %` : "It is excluded"} from round ${order.from_round} on.`;
    if (!this.#weighs || (hasEnded(this.#state) && this.#state.past === undefined)) return `<p class="small mute">${words}</p>`;
    const named = `data-name="${esc(client.name)}" data-confirm="${esc(client.name)}" data-client-id="${client.id}"`;
    const exclude = order.percent ? `<button class="btn danger" type="button" data-dialog="exclude" ${named}>Exclude…</button>` : "";
    const less = this.#weighs === "less" || !order.percent ? `<button class="btn" type="button" data-dialog="weigh" ${named}>${order.percent ? "Change its weight…" : "Let it in again…"}</button>` : "";
    return `<div class="stack tight"><p>${words}</p><div class="row wrapped">${exclude}${less}</div></div>`;
  }

  #prepare(button) {
    if (!button) return;
    const field = $(`#${button.dataset.dialog}-client`);
    if (field) field.value = button.dataset.clientId;
  }

  #closed() {
    this.#client = null;
    setQuery({ client: "" });
    if (this.#opener?.isConnected) this.#opener.focus({ preventScroll: true });
    setText($("h2", this.#dialog), "");
  }
}
