// Who answered in each round, and what went over the network: bars, with tables of the same numbers.
import { $, setText } from "../dom.js";
import { Chart, TableTwin, color, roundAxis } from "../charts.js";
import { bytes, bytesParts, number, percent } from "../format.js";

/** The unit in which the largest of `rounds` is a handy number: its name and its size. */
function unitOf(rounds) {
  const most = Math.max(1, ...rounds.map((round) => round.bytesUp + round.bytesDown));
  const name = bytesParts(most)[1];
  return [name, 1000 ** ["B", "kB", "MB", "GB", "TB"].indexOf(name)];
}

const ended = (state) => [...state.rounds.values()].filter((round) => round.status !== "running" && round.expected).sort((a, b) => a.number - b.number || a.attempt - b.attempt);
const sum = (values) => values.reduce((a, b) => a + b, 0);

class Bars {
  #chart; #twin; #state = null; #series; #y; #digits; #words;

  /** `series(rounds)`: [[name, token, value of a round], …]; `y(rounds)` names the axis; `words` sums the rounds up. */
  constructor(panel, { series, y, digits, words }) {
    this.panel = panel;
    this.#series = series;
    this.#y = y;
    this.#digits = digits;
    this.#words = words;
    const figure = $("figure", panel);
    this.#chart = new Chart(figure, () => this.#build());
    this.#twin = new TableTwin(figure, () => this.#table());
  }

  draw(state) {
    this.#state = state;
    const rounds = ended(state);
    setText($("[data-hint]", this.panel), rounds.length ? this.#words(rounds) : "no round has ended");
    this.#chart.draw();
    this.#twin.draw();
  }

  #build() {
    const rounds = ended(this.#state);
    const data = this.#series(rounds).map(([name, token, value]) => ({
      type: "bar", name, x: rounds.map((round) => round.number), y: rounds.map(value), marker: { color: color(token), line: { width: 0 } },
      hovertemplate: `%{y:,.${this.#digits}f} ${name}<extra></extra>`,
    }));
    const axis = roundAxis(this.#state.run.numRounds);
    const xaxis = { ...axis, range: [0.5, Math.max(1, this.#state.run.numRounds) + 0.5] };
    return { data, x: "Round", y: this.#y(rounds), layout: { barmode: "stack", bargap: rounds.length > 60 ? 0 : 0.15, xaxis, yaxis: { rangemode: "tozero" } } };
  }

  #table() {
    const rounds = ended(this.#state);
    const series = this.#series(rounds);
    const cells = (round) => series.map(([, , value]) => number(value(round), this.#digits));
    return [["Round", ...series.map(([name]) => name)], rounds.reverse().map((round) => [round.attempt > 1 ? `${round.number}, attempt ${round.attempt}` : round.number, ...cells(round)])];
  }
}

export class RoundPanels {
  #panels;

  constructor(answers, traffic) {
    this.#panels = [
      new Bars(answers, {
        y: () => "Clients", digits: 0,
        series: () => [["answered", "--ph-train", (round) => round.received], ["dropped out", "--bad", (round) => Math.max(0, round.expected - round.received)]],
        words: (rounds) => `${percent(1 - sum(rounds.map((r) => Math.min(r.received, r.expected))) / sum(rounds.map((r) => r.expected)))} of what was asked for did not come`,
      }),
      new Bars(traffic, {
        y: (rounds) => `Traffic (${unitOf(rounds)[0]} a round)`, digits: 1,
        series: (rounds) => {
          const [unit, size] = unitOf(rounds);
          return [[`${unit} to clients`, "--ph-down", (round) => round.bytesDown / size], [`${unit} from clients`, "--ph-up", (round) => round.bytesUp / size]];
        },
        words: (rounds) => {
          const seconds = sum(rounds.map((r) => ((r.endedAt ?? r.committedAt ?? r.startedAt) - r.startedAt) / 1000));
          const total = sum(rounds.map((r) => r.bytesUp + r.bytesDown));
          return seconds > 0 ? `${bytes(total)} in all, ${bytes(total / seconds)} a second of its rounds` : `${bytes(total)} in all`;
        },
      }),
    ];
  }

  draw(state) {
    this.#panels.forEach((panel) => panel.draw(state));
  }
}
