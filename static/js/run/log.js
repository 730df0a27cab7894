// The event log: filter, follow, never scroll for a reader who scrolled away.
import { $, esc, setText } from "../dom.js";
import { clock, number } from "../format.js";
import { onShortcut } from "../keys.js";

const WORDS = { info: "Info", round: "Round", warning: "Warning", error: "Error" };
const CLASSES = { warning: "warn" };

const line = (event) =>
  `<li class="${CLASSES[event.level] ?? event.level}"><time datetime="${esc(event.at)}">${clock(Date.parse(event.at))}</time><span class="lv">${WORDS[event.level] ?? esc(event.level)}</span><span class="m">${esc(event.message)}</span></li>`;

export class EventLog {
  #box; #list; #find; #level; #follow; #earlier; #state = null; #drawn = { filter: null, first: 0, last: 0 };

  constructor(panel, loadEarlier) {
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
    onShortcut((key) => { if (key === "f") this.#follow.click(); });
  }

  get #following() {
    return this.#follow.getAttribute("aria-pressed") === "true";
  }

  #setFollow(on) {
    this.#follow.setAttribute("aria-pressed", String(on));
    if (on) this.#box.scrollTop = this.#box.scrollHeight;
  }

  #passes(event) {
    const words = this.#find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const level = this.#level.value;
    return (!level || event.level === level) && words.every((word) => event.message.toLowerCase().includes(word));
  }

  draw(state) {
    if (!state) return;
    this.#state = state;
    const { events } = state;
    const first = events[0]?.seq ?? 0;
    const filter = `${this.#level.value} ${this.#find.value}`;
    const again = filter !== this.#drawn.filter || first !== this.#drawn.first;
    const fresh = (again ? events : events.filter((e) => e.seq > this.#drawn.last)).filter((e) => this.#passes(e));
    if (again) this.#list.replaceChildren();
    if (fresh.length) this.#list.insertAdjacentHTML("beforeend", fresh.map(line).join(""));
    this.#drawn = { filter, first, last: state.lastSeq };
    this.#earlier.hidden = first <= 1;
    setText($("[data-count]", this.#box.parentElement), `${number(this.#list.childElementCount)} shown`);
    if (this.#following) this.#box.scrollTop = this.#box.scrollHeight;
  }
}
