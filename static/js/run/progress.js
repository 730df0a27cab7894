// The round bar and what it says; how long the run still takes.
import { $, setHtml, setText } from "../dom.js";
import { day, duration, estimate, minute } from "../format.js";
import { committedRounds, currentRound, hasEnded } from "./state.js";

const MOST_SEGMENTS = 100;
/** What the run does while no round is in progress, by its status. */
const BETWEEN = { queued: "waiting for its turn", paused: "paused", pausing: "pausing", stopping: "stopping", running: "measuring the model, next round follows" };
/** An end that lies farther off is told with its day. */
const FAR_SECONDS = 20 * 3600;
/** A round that lost more than this share of its cohort is marked. */
const LOSS_MARK = 0.1;

function segments(state) {
  const done = new Map(committedRounds(state).map((round) => [round.number, round]));
  const running = currentRound(state);
  let html = "";
  for (let number = 1; number <= state.run.numRounds; number += 1) {
    const round = done.get(number);
    if (round) html += `<i class="${round.received < round.expected * (1 - LOSS_MARK) ? "w" : "d"}"></i>`;
    else if (number <= state.run.roundsDone) html += '<i class="d"></i>';
    else html += running?.number === number && running.status === "running" ? '<i class="now"></i>' : "<i></i>";
  }
  return html;
}

function bar(state) {
  const { roundsDone, numRounds } = state.run;
  const label = `${roundsDone} of ${numRounds} rounds done`;
  return numRounds > MOST_SEGMENTS
    ? `<progress value="${roundsDone}" max="${numRounds}" aria-label="${label}"></progress>`
    : `<div class="roundbar" role="img" aria-label="${label}">${segments(state)}</div>`;
}

/** The server's forecast, as time passes; nothing where it says that nobody can tell. */
function timeLeft(state, outlook, now) {
  if (hasEnded(state) || state.run.status === "paused" || !outlook?.end) return "";
  const since = (now - outlook.at) / 1000;
  const [left, low, high] = ["value", "low", "high"].map((name) => Math.max(0, outlook.end[name] - since));
  const when = (seconds) => (seconds > FAR_SECONDS ? `${day(now + seconds * 1000)}, ${minute(now + seconds * 1000)}` : minute(now + seconds * 1000));
  const ends = when(low) === when(high) ? `near ${when(left)}` : `between ${when(low)} and ${when(high)}`;
  return `${estimate(left)} left, done ${ends}`;
}

function headline(state, now) {
  const { roundsDone, numRounds, status } = state.run;
  const round = currentRound(state);
  if (hasEnded(state)) return [`${roundsDone} of ${numRounds} rounds`, ""];
  if (state.waiting?.busy) {
    return [`Round ${roundsDone + 1} of ${numRounds}`, `waiting for clients busy in other runs: ${state.waiting.have} of ${state.waiting.need} have their task`];
  }
  if (state.waiting) return [`Round ${roundsDone + 1} of ${numRounds}`, `waiting for clients: ${state.waiting.have} of ${state.waiting.need} connected`];
  if (!round || round.status !== "running") {
    return [`${roundsDone} of ${numRounds} rounds`, BETWEEN[status] ?? "next round follows"];
  }
  return [`Round ${round.number} of ${numRounds}`, `in progress for ${duration(Math.max(0, (now - round.startedAt) / 1000))}`];
}

export function drawProgress(state, outlook, now = Date.now()) {
  const [title, sub] = headline(state, now);
  setText($("#progress-title"), title);
  setText($("#progress-sub"), sub);
  setText($("#progress-eta"), timeLeft(state, outlook, now));
  setHtml($("#progress-bar"), bar(state));
}
