// The model of the round that the page shows: its figures, its file, and how far it went from the one before.
import { $, setText } from "../dom.js";
import { bytes, day, metric } from "../format.js";
import { Diff } from "./diff.js";
import { bestSource } from "./state.js";

export class Checkpoints {
  #panel; #diff; #state = null;

  constructor(panel) {
    this.#panel = panel;
    this.#diff = new Diff($("#diff", panel));
  }

  draw(state) {
    this.#state = state;
    const last = Math.max(-1, ...state.models.keys());
    $("[data-none]", this.#panel).hidden = last >= 0;
    $("[data-some]", this.#panel).hidden = last < 0;
    if (last < 0) return;
    setText($("[data-last]", this.#panel), `round ${last}`);
    const gone = [...state.models.values()].filter((model) => model.removed_at).length;
    setText($("[data-gone]", this.#panel), gone ? `; ${gone} removed by retention` : "");
    this.#show(last);
    this.#diff.draw(state.models, last);
  }

  #value(name, round) {
    const source = bestSource(this.#state, name);
    return metric(name, source && this.#state.metrics.get(name).get(source).get(round));
  }

  #show(round) {
    const model = this.#state.models.get(round);
    setText($("[data-round]", this.#panel), round === 0 ? "0, as the run began" : String(round));
    setText($("[data-accuracy]", this.#panel), this.#value("accuracy", round));
    setText($("[data-loss]", this.#panel), this.#value("loss", round));
    setText($("[data-size]", this.#panel), bytes(model.size));
    setText($("[data-sha]", this.#panel), model.sha256);
    $("[data-there]", this.#panel).hidden = Boolean(model.removed_at);
    const removed = $("[data-removed]", this.#panel);
    removed.hidden = !model.removed_at;
    if (model.removed_at) setText(removed, `Its file was removed by retention on ${day(Date.parse(model.removed_at))}; figures and SHA-256 are kept.`);
    const link = $("a[download]", this.#panel);
    link.href = link.dataset.url.replace(/\/0$/, `/${round}`);
    setText($("span", link), `Download round ${round}`);
    const promote = $("[data-promote]", this.#panel);
    if (promote) promote.href = promote.href.replace(/\d*$/, round);
    const fork = $("[data-fork]", this.#panel);
    if (!fork) return;
    fork.href = fork.href.replace(/\d*$/, round);
    setText($("span", fork), `Fork from round ${round}`);
  }
}
