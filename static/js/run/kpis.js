// The figures above the fold.
import { $, setHtml, setText } from "../dom.js";
import { bytesParts, duration, isLowerBetter, isShare, metric, number } from "../format.js";
import { sparkline } from "../charts.js";
import { bestSource, committedRounds, currentRound, hasEnded, series } from "./state.js";

const SOURCE_WORDS = { server: "on the server", federated: "by the clients", fit: "in training" };

function show(id, value, unit, detail, spark = "") {
  const tile = $(`#${id}`);
  setHtml($(".v", tile), `${value}${unit ? `<small>${unit}</small>` : ""}`);
  setHtml($(".d", tile), detail);
  if ($(".sp", tile)) setHtml($(".sp", tile), spark);
}

function change(name, values) {
  if (values.length < 2) return "";
  const [[before, old], [, now]] = values.slice(-2);
  const delta = now - old;
  const digits = isShare(name) ? 4 : 3;
  if (Number(delta.toFixed(digits)) === 0) return `as in round ${before}`;
  const better = isLowerBetter(name) ? delta < 0 : delta > 0;
  const sign = delta < 0 ? "−" : "+";
  const size = isShare(name) ? `${number(Math.abs(delta) * 100, 2)} pt` : number(Math.abs(delta), 3);
  return `<span class="${better ? "up" : "dn"}">${sign}${size}</span> on round ${before}`;
}

function drawMetric(state, id, name) {
  const source = bestSource(state, name);
  const values = source ? series(state, name, source) : [];
  if (!values.length) {
    show(id, "–", "", "not measured yet");
    return;
  }
  const [value, unit] = metric(name, values.at(-1)[1]).split(" ");
  show(id, value, unit, change(name, values) || SOURCE_WORDS[source], sparkline(values.slice(-40).map(([, v]) => v)));
}

function drawParticipants(state) {
  const round = committedRounds(state).at(-1) ?? currentRound(state);
  if (!round) {
    show("kpi-clients", "–", "", "no round yet");
    return;
  }
  const missing = round.expected - round.received;
  const detail = round.status !== "committed" ? `round ${round.number} in progress` : missing ? `${missing} missing in round ${round.number}` : `all, in round ${round.number}`;
  show("kpi-clients", number(round.received), `of ${number(round.expected)} answered`, detail);
}

function drawRoundTime(state) {
  const rounds = committedRounds(state);
  if (!rounds.length) {
    show("kpi-time", "–", "", "no round yet");
    return;
  }
  const seconds = rounds.map((round) => ((round.endedAt ?? round.committedAt) - round.startedAt) / 1000);
  const [value, ...unit] = duration(seconds.reduce((a, b) => a + b, 0) / seconds.length).split(" ");
  show("kpi-time", value, `${unit.join(" ")} mean`, `last ${duration(seconds.at(-1))}`, sparkline(seconds.slice(-40)));
}

function drawTraffic(state) {
  const [up, down] = ["bytesUp", "bytesDown"].map((key) => [...state.rounds.values()].reduce((sum, round) => sum + round[key], 0));
  const [value, unit] = bytesParts(up + down);
  show("kpi-traffic", value, unit, `${bytesParts(up).join(" ")} up, ${bytesParts(down).join(" ")} down`);
}

export function drawDuration(state, now = Date.now()) {
  const { startedAt, endedAt } = state.run;
  if (!startedAt) return;
  const [value, ...unit] = duration(Math.max(0, ((endedAt ?? now) - startedAt) / 1000)).split(" ");
  setHtml($("#kpi-duration .v"), `${value}<small>${unit.join(" ")}</small>`);
  setText($("#kpi-duration .d"), state.past !== undefined ? `up to round ${state.past}` : hasEnded(state) ? "in all" : "so far");
}

export function drawKpis(state) {
  drawMetric(state, "kpi-accuracy", "accuracy");
  drawMetric(state, "kpi-loss", "loss");
  drawParticipants(state);
  drawRoundTime(state);
  drawTraffic(state);
  drawDuration(state);
}
