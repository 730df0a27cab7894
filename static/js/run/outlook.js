// The forecast: asked of the server after each committed round, at most every few seconds.
import { getJson } from "./feed.js";
import { hasEnded } from "./state.js";

const AGAIN_MS = 5000;

export class Outlook {
  #api; #told; #wanted = ""; #asked = ""; #timer = 0;
  known = null;

  constructor(api, told) {
    this.#api = api;
    this.#told = told;
  }

  /** For what is looked at now; nothing of a run that has ended. */
  want(state, { metric, source, target }) {
    if (hasEnded(state)) {
      this.known = null;
      return;
    }
    const query = new URLSearchParams({ metric, source, ...(target === null ? {} : { target }) });
    this.#wanted = `${query}#${state.run.roundsDone} ${state.run.status} ${state.run.numRounds}`;
    const hurry = this.#asked.split("#")[0] !== this.#wanted.split("#")[0];
    if (this.#wanted === this.#asked || (this.#timer && !hurry)) return;
    clearTimeout(this.#timer);
    this.#ask();
  }

  async #ask() {
    this.#asked = this.#wanted;
    this.#timer = setTimeout(() => {
      this.#timer = 0;
      if (this.#wanted !== this.#asked && !document.hidden) this.#ask();
    }, AGAIN_MS);
    try {
      const known = await getJson(`${this.#api}/outlook?${this.#asked.split("#")[0]}`);
      this.known = { ...known, at: Date.now() };
      this.#told();
    } catch (error) {
      console.warn(`The forecast could not be fetched: ${error.message}`);
    }
  }
}
