// How far the model went between two rounds, by layer, computed by the server when somebody looks.
import { $, esc, setHtml, setQuery, setText } from "../dom.js";
import { number } from "../format.js";
import { getJson } from "./feed.js";

const size = (value) => (value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(1) : number(value, 3));
const change = (value) => (value === null ? "–" : `${number(value * 100, value < 0.01 ? 2 : 1)} %`);

function row(one, widest) {
  const words = `norm of the difference ${size(one.norm)}, ${one.change === null ? "from nothing" : `${change(one.change)} of the norm before`}, cosine ${one.cosine === null ? "not defined" : number(one.cosine, 4)}, largest ${size(one.largest)}, ${number(one.size)} numbers`;
  return `<span title="${esc(one.name)}">${esc(one.name)}</span><span class="bar" aria-hidden="true"><i style="--x:${(one.norm / widest).toFixed(3)}"></i></span><span class="num" title="${esc(words)}">${size(one.norm)}<span class="sr">: ${esc(words)}</span></span><span class="num" aria-hidden="true">${change(one.change)}</span>`;
}

export class Diff {
  #box; #since; #models = null; #shown = ""; #seen = false; #to = null; #timer = 0;

  constructor(box) {
    this.#box = box;
    this.#since = $("[data-since]", box);
    const asked = new URLSearchParams(location.search).get("since");
    if (/^\d{1,9}$/.test(asked ?? "")) this.#since.value = asked;
    this.#since.addEventListener("change", () => {
      setQuery({ since: this.#since.value });
      this.#look();
    });
    new IntersectionObserver((entries) => {
      this.#seen = entries.some((entry) => entry.isIntersecting);
      if (this.#seen) this.#look();
    }).observe(box);
  }

  /** `to`: the round whose model is shown. */
  draw(models, to) {
    this.#models = models;
    this.#to = to;
    this.#since.max = Math.max(0, ...models.keys());
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), 400);
  }

  get #from() {
    if (this.#since.value !== "") return Number(this.#since.value);
    return [...this.#models.keys()].filter((round) => round < this.#to).reduce((a, b) => Math.max(a, b), -1);
  }

  async #look() {
    if (!this.#seen || this.#to === null) return;
    const [from, to] = [this.#from, this.#to];
    this.#since.placeholder = String(Math.max(0, to - 1));
    if (`${from} ${to}` === this.#shown) return;
    this.#shown = `${from} ${to}`;
    if (from < 0 || from === to) {
      this.#say(from < 0 ? "There is no earlier model." : "Both are the same model: choose an earlier round.");
      return;
    }
    this.#say("Comparing…");
    try {
      const body = await getJson(this.#box.dataset.diffUrl.replace(/\/0\/0$/, `/${from}/${to}`));
      if (`${from} ${to}` === this.#shown) this.#show(body);
    } catch (error) {
      if (`${from} ${to}` === this.#shown) this.#say(error.detail ?? "The models could not be compared: one of them is gone, or the server is away.");
    }
  }

  #say(words) {
    setText($("[data-diff-words]", this.#box), words);
    setHtml($("[data-layers]", this.#box), "");
  }

  #show({ from, to, total, layers }) {
    this.#say(`From round ${from} to ${to}: ${size(total.norm)} in all, ${change(total.change)} of the model’s norm, cosine ${total.cosine === null ? "–" : number(total.cosine, 4)}. L2 norm of the difference, and its share of the norm before.`);
    const widest = Math.max(...layers.map(({ norm }) => norm), Number.MIN_VALUE);
    setHtml($("[data-layers]", this.#box), layers.map((layer) => `<details><summary>${row(layer, widest)}</summary>${layer.tensors.map((tensor) => `<div class="tensor">${row(tensor, widest)}</div>`).join("")}</details>`).join(""));
  }
}
