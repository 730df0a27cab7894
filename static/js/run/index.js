// The run page: load, follow, and redraw what changed.
import { $, $$, announce, icon, isTyping } from "../dom.js";
import { renew } from "../live/regions.js";
import { Checkpoints } from "./checkpoints.js";
import { Feed } from "./feed.js";
import { Timeline } from "./gantt.js";
import { Heatmap, drawAnomalies } from "./heatmap.js";
import { EventLog } from "./log.js";
import { MetricsPanel } from "./metrics.js";
import { drawDuration, drawKpis } from "./kpis.js";
import { onShortcut } from "../keys.js";
import { drawProgress } from "./progress.js";
import { hasEnded } from "./state.js";
import { drawStrip } from "./strip.js";

const page = $("#run");
const { api, socket, clientUrl } = page.dataset;
const urlOf = (id) => clientUrl.replace("00000000-0000-0000-0000-000000000000", id);

const metrics = new MetricsPanel($("#metrics"));
const timeline = new Timeline($("#timeline"));
const heatmap = new Heatmap($("#by-round"));
const checkpoints = new Checkpoints($("#checkpoints"));
const feed = new Feed(api, paint);
const log = new EventLog($("#events"), () => feed.earlier());
let drawn = {};
let headShows = `${$("#run-head").dataset.status} ${$$("[data-commands] li").length}`;

function paint(state) {
  drawProgress(state);
  drawStrip(state, urlOf);
  if (state.metrics !== drawn.metrics || state.run !== drawn.run || state.commands !== drawn.commands) metrics.draw(state);
  if (state.rounds !== drawn.rounds || state.metrics !== drawn.metrics) drawKpis(state);
  if (state.rounds !== drawn.rounds) {
    timeline.draw(state);
    heatmap.draw(state);
    drawAnomalies(state);
  }
  if (state.models !== drawn.models || state.metrics !== drawn.metrics) checkpoints.draw(state);
  if (state.events !== drawn.events) log.draw(state);
  if (drawn.run) tell(drawn.run, state.run);
  keepHeadCurrent(state);
  drawn = state;
}

/** For those who listen. */
function tell(before, now) {
  if (now.roundsDone > before.roundsDone) announce(`Round ${now.roundsDone} of ${now.numRounds} done`);
  if (now.status !== before.status) announce(`The run is ${now.status}`);
}

/** The server renders the header, and is asked again when something has happened that may change it. */
function keepHeadCurrent({ run, waiting, commands }) {
  const shows = `${run.status} ${commands.length}`;
  if (shows !== headShows) renew($("#run-head"));
  else if (waiting !== drawn.waiting) $("#run-state").dispatchEvent(new CustomEvent("refresh"));
  headShows = shows;
}

/** The status also changes without an event: a run waits in the queue, or has lost its worker. */
document.addEventListener("htmx:afterSettle", () => {
  const [head, state] = [$("#run-head"), $("#run-state")];
  if (head.dataset.status !== state.dataset.status) renew(head);
});

/** Clocks and bars move between events, unless the reader has paused the page. */
function tick() {
  const { state } = feed;
  if (!state || document.hidden || feed.paused || hasEnded(state)) return;
  drawProgress(state);
  drawDuration(state);
  timeline.draw(state);
}
setInterval(tick, 1000);

onShortcut((key, event) => {
  if (key !== " " || isTyping(event) || event.target !== document.body) return;
  event.preventDefault();
  feed.togglePause();
});

feed.start(socket).catch((error) => {
  console.error(error);
  const box = document.createElement("div");
  box.className = "callout bad";
  box.setAttribute("role", "alert");
  box.innerHTML = `${icon("warn")}<div><b class="b">The figures of this run could not be loaded.</b> <span class="sub">The run itself isn't affected. Reload the page to try again.</span></div>`;
  page.prepend(box);
});
