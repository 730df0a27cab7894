// Time travel: the page as it was when a round had ended. The round is in the address; at the newest one the page follows the run.
import { $, setQuery, setText } from "../dom.js";
import { onShortcut } from "../keys.js";
import { asOf } from "./state.js";

export class Travel {
  #range; #changed; #round = null; #view = null; #of = null; #timer = 0;

  /** `changed(round)` is called when the reader has gone somewhere; null: back to now. */
  constructor(box, changed) {
    this.box = box;
    this.#range = $("input", box);
    this.#changed = changed;
    const asked = new URLSearchParams(location.search).get("round");
    if (/^\d{1,9}$/.test(asked ?? "")) this.#round = Number(asked);
    this.#range.addEventListener("input", () => this.#goTo(Number(this.#range.value)));
    $("[data-now]", box).addEventListener("click", () => this.goTo(null));
    onShortcut((key) => {
      if (key === "[" || key === "]") this.#goTo(Number(this.#range.value) + (key === "]" ? 1 : -1));
    });
  }

  get round() {
    return this.#round;
  }

  goTo(round) {
    this.#goTo(round ?? Number(this.#range.max));
  }

  #goTo(round) {
    const at = Math.min(Number(this.#range.max), Math.max(Number(this.#range.min), round));
    this.#round = at === Number(this.#range.max) ? null : at;
    this.#range.value = at;
    this.#say();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      setQuery({ round: this.#round });
      this.#changed(this.#round);
    }, 80);
  }

  /** What the panels show: the state itself, or what it was; the same object as long as nothing of it has changed. */
  view(state) {
    const first = Math.min(...state.models.keys(), ...[...state.rounds.values()].map(({ number }) => number));
    this.#range.min = Number.isFinite(first) ? first : 0;
    this.#range.max = state.run.roundsDone;
    this.box.classList.toggle("is-empty", state.run.roundsDone < 1);
    if (this.#round !== null && this.#round >= state.run.roundsDone) this.#round = null;
    this.#range.value = this.#round ?? state.run.roundsDone;
    this.#say();
    if (this.#round === null) return state;
    const same = this.#view?.past === this.#round && this.#of.commands === state.commands && this.#partsOf(state) === this.#partsOf(this.#of);
    if (!same) [this.#view, this.#of] = [asOf(state, this.#round), state];
    return this.#view;
  }

  /** Whether participations of the round have been fetched meanwhile. */
  #partsOf(state) {
    return [...state.rounds.values()].find(({ number }) => number === this.#round)?.parts;
  }

  #say() {
    const [at, last] = [Number(this.#range.value), Number(this.#range.max)];
    const words = this.#round === null ? `now, round ${last}` : `as of round ${at} of ${last}`;
    this.#range.setAttribute("aria-valuetext", words);
    setText($("[data-shown]", this.box), words);
    $("[data-now]", this.box).disabled = this.#round === null;
    document.body.classList.toggle("is-past", this.#round !== null);
  }
}
