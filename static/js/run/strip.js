// The round in progress: one row a client of the cohort, in order of names so that no row ever jumps.
import { $, setHtml, setText, who } from "../dom.js";
import { clock, duration, number } from "../format.js";
import { atWork, clientOf, currentRound } from "./state.js";

const MOST_ROWS = 60;
const SLOWEST_SHOWN = 8;
const PHASES = ["downloading", "training", "uploading"];
const WORDS = { downloading: "Downloading", training: "Training", uploading: "Uploading", evaluating: "Evaluating", done: "Done" };
const OUTCOMES = { failed: "Failed", refused: "Refused", lost: "Lost", late: "Too late", rejected: "Rejected", cancelled: "Cancelled" };
const GROUPS = [["waiting", "--line-2"], ["downloading", "--ph-down"], ["training", "--ph-train"], ["uploading", "--ph-up"], ["done", "--ok"], ["refused", "--line-2"], ["lost", "--bad"]];

/** How much of each phase is done, 0 to 1. */
function fill(part) {
  if (part.outcome === "completed" || part.phase === "evaluating" || part.phase === "done") return [1, 1, 1];
  const at = PHASES.indexOf(part.phase);
  return PHASES.map((_, i) => (i < at ? 1 : i === at ? part.fraction : 0));
}

function group(part) {
  if (part.outcome === "refused") return "refused";
  if (OUTCOMES[part.outcome]) return "lost";
  if (part.outcome === "completed") return "done";
  return part.phase ?? "waiting";
}

function words(part) {
  if (OUTCOMES[part.outcome]) return OUTCOMES[part.outcome];
  if (part.phase === "evaluating") return WORDS.evaluating;
  if (part.outcome !== "completed") return part.busy ? "Busy elsewhere" : WORDS[part.phase] ?? "Waiting";
  const seconds = PHASES.reduce((sum, phase) => sum + (part.seconds[phase] ?? 0), 0);
  return part.steps ? `Done, ${part.steps}` : `Done, ${duration(seconds)}`;
}

const { compare: compareNames } = new Intl.Collator("en", { numeric: true });
const progressed = ([, part]) => fill(part).reduce((a, b) => a + b, 0);

function rowsOf(state, parts) {
  const name = (id) => clientOf(state, id).name;
  const byName = ([a], [b]) => compareNames(name(a), name(b));
  const rows = [...parts];
  if (rows.length <= MOST_ROWS) return rows.sort(byName);
  const progress = new Map(rows.filter(([, part]) => group(part) !== "done").map((row) => [row, progressed(row)]));
  return [...progress.keys()].sort((a, b) => progress.get(a) - progress.get(b) || byName(a, b)).slice(0, SLOWEST_SHOWN);
}

function build(list, state, rows, clientUrl) {
  list.innerHTML = rows
    .map(([id]) => `<li><a href="${clientUrl(id)}">${who(clientOf(state, id))}</a><span class="phase" role="progressbar" aria-valuemin="0" aria-valuemax="100"><i></i><i></i><i></i></span><span class="st"></span></li>`)
    .join("");
}

/** What is said of a client beside its row: why it is there, when it is expected, why it ended. */
function told(part, nameOf) {
  const expected = part.outcome === "pending" && part.expected;
  return [
    part.replaces && `In the place of ${nameOf(part.replaces)}.`,
    expected && `Expected by ${clock(expected.by)}; it usually takes ${duration(expected.usual)}.`,
    part.reason,
  ].filter(Boolean).join(" ");
}

function drawRow(row, part, name, nameOf) {
  const [down, train, up] = fill(part);
  const bar = $(".phase", row);
  bar.style.setProperty("--d", down.toFixed(3));
  bar.style.setProperty("--t", train.toFixed(3));
  bar.style.setProperty("--u", up.toFixed(3));
  const kind = group(part) === "lost" ? "fail" : group(part);
  bar.classList.toggle("fail", kind === "fail");
  bar.setAttribute("aria-valuenow", String(Math.round(((down + train + up) / 3) * 100)));
  bar.setAttribute("aria-label", `Progress of ${name}`);
  row.className = kind === "fail" || kind === "done" ? kind : "";
  row.title = told(part, nameOf);
  setText($(".st", row), words(part));
}

function summary(parts) {
  const counts = new Map(GROUPS.map(([name]) => [name, 0]));
  for (const part of parts.values()) {
    const name = group(part) === "evaluating" ? "done" : group(part);
    counts.set(name, counts.get(name) + 1);
  }
  return GROUPS.filter(([name]) => counts.get(name) > 0 || name === "done")
    .map(([name, token]) => `<span class="e"><i class="sw" style="--k:var(${token})"></i>${name} <b class="b">${number(counts.get(name))}</b></span>`)
    .join("");
}

export function drawStrip(state, clientUrl) {
  const round = currentRound(state);
  if (!round) return;
  const parts = atWork(state);
  setText($("#live-title"), round.status === "running" ? `Round ${round.number}, live` : `Round ${round.number}`);
  setText($("#live-deadline"), round.deadline ? `deadline ${duration(round.deadline)}` : "");
  setHtml($("#live-summary"), summary(parts));
  const list = $("#live-list");
  const rows = rowsOf(state, parts);
  const shape = `${state.current} ${rows.map(([id]) => id).join()}`;
  if (list.dataset.shape !== shape) {
    build(list, state, rows, clientUrl);
    list.dataset.shape = shape;
  }
  const nameOf = (id) => clientOf(state, id).name;
  rows.forEach(([id, part], i) => drawRow(list.children[i], part, nameOf(id), nameOf));
}
