// The event log: filter, follow, never scroll for a reader who scrolled away.
import { $, esc, setText, whenIdle } from "../dom.js";
import { clock, number } from "../format.js";
import { onShortcut } from "../keys.js";

const WORDS = { info: "Info", round: "Round", warning: "Warning", error: "Error" };
/** More new lines come after what is above them on the page. */
const MANY = 100;
const CLASSES = { warning: "warn" };

/** What an event says of a client in a round leads to its bar in the timeline. */
function said(event) {
  const text = esc(event.message);
  if (!event.client || !event.round) return text;
  return `<a class="go" href="?round=${event.round}#timeline" data-bar-client="${event.client}" data-bar-round="${event.round}">${text}</a>`;
}

const line = (event) =>
  `<li class="${CLASSES[event.level] ?? event.level}" data-seq="${event.seq}"><time datetime="${esc(event.at)}">${clock(Date.parse(event.at))}</time><span class="lv">${WORDS[event.level] ?? esc(event.level)}</span><span class="m">${said(event)}</span></li>`;

export class EventLog {
  #box; #list; #find; #level; #follow; #earlier; #state = null; #only = null; #waits = false; #drawn = { filter: null, first: 0, last: 0 };

  /** `openBar(client, round)` shows a bar in the timeline. */
  constructor(panel, { loadEarlier, loadOnly, openBar }) {
    this.#box = $(".log", panel);
    this.#list = $("ol", this.#box);
    this.#find = $("[type=search]", panel);
    this.#level = $("select", panel);
    this.#follow = $("[data-follow]", panel);
    this.#earlier = $("[data-earlier]", panel);
    this.#find.addEventListener("input", () => this.draw(this.#state));
    this.#level.addEventListener("change", () => this.draw(this.#state));
    this.#follow.addEventListener("click", () => this.#setFollow(!this.#following));
    this.#earlier.addEventListener("click", loadEarlier);
    this.#box.addEventListener("wheel", ({ deltaY }) => { if (deltaY < 0) this.#setFollow(false); }, { passive: true });
    this.#box.addEventListener("touchmove", () => this.#setFollow(false), { passive: true });
    this.#list.addEventListener("click", (event) => {
      const link = event.target.closest("[data-bar-client]");
      if (!link) return;
      event.preventDefault();
      openBar(link.dataset.barClient, Number(link.dataset.barRound));
    });
    this.loadOnly = loadOnly;
    $("[data-only-clear]", panel).addEventListener("click", () => this.showAll());
    onShortcut((key) => { if (key === "f") this.#follow.click(); });
  }

  get #following() {
    return this.#follow.getAttribute("aria-pressed") === "true";
  }

  #setFollow(on) {
    this.#follow.setAttribute("aria-pressed", String(on));
    if (on) this.#box.scrollTop = this.#box.scrollHeight;
  }

  /** Only what is told of a round, or of a client in it: fetched, for it may be long ago. */
  async showOnly({ client = null, round, words }) {
    const key = `${client ?? ""} ${round}`;
    if (this.#only?.key === key) return;
    const only = { key, words, events: [] };
    this.#only = only;
    try {
      only.events = await this.loadOnly({ client, round });
    } catch (error) {
      console.warn(`Events could not be fetched: ${error.message}`);
    }
    if (this.#only === only) this.draw(this.#state);
  }

  showAll() {
    if (!this.#only) return;
    this.#only = null;
    this.draw(this.#state);
  }

  #passes(event) {
    const words = this.#find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const level = this.#level.value;
    return (!level || event.level === level) && words.every((word) => event.message.toLowerCase().includes(word));
  }

  draw(state) {
    if (!state) return;
    this.#state = state;
    if (state.lastSeq - this.#drawn.last <= MANY) this.#show();
    else if (!this.#waits) {
      this.#waits = true;
      whenIdle(() => this.#show());
    }
  }

  #show() {
    const state = this.#state;
    this.#waits = false;
    const panel = this.#box.parentElement;
    $("[data-only]", panel).hidden = !this.#only;
    setText($("[data-only-words]", panel), this.#only?.words ?? "");
    const events = this.#only?.events ?? state.events;
    const first = events[0]?.seq ?? 0;
    const filter = `${this.#level.value} ${this.#find.value} ${this.#only?.key ?? ""} ${this.#only?.events.length ?? ""}`;
    const again = filter !== this.#drawn.filter || first !== this.#drawn.first;
    const fresh = (again ? events : events.filter((e) => e.seq > this.#drawn.last)).filter((e) => this.#passes(e));
    if (again) this.#list.replaceChildren();
    if (fresh.length) this.#list.insertAdjacentHTML("beforeend", fresh.map(line).join(""));
    this.#drawn = { filter, first, last: state.lastSeq };
    this.#earlier.hidden = first <= 1 || this.#only !== null;
    setText($("[data-count]", this.#box.parentElement), `${number(this.#list.childElementCount)} shown`);
    if (this.#following) this.#box.scrollTop = this.#box.scrollHeight;
  }
}
