// The run page: load, follow, and redraw what changed.
import { $, $$, announce, icon, isTyping } from "../dom.js";
import { renew } from "../live/regions.js";
import { Checkpoints } from "./checkpoints.js";
import { Drawer } from "./drawer.js";
import { Feed, getJson } from "./feed.js";
import { Timeline } from "./gantt.js";
import { Heatmap, drawAnomalies } from "./heatmap.js";
import { EventLog } from "./log.js";
import { MetricsPanel } from "./metrics.js";
import { drawDuration, drawKpis } from "./kpis.js";
import { onShortcut } from "../keys.js";
import { Outlook } from "./outlook.js";
import { drawProgress } from "./progress.js";
import { RoundPanels } from "./rounds.js";
import { clientOf, hasEnded } from "./state.js";
import { drawStrip } from "./strip.js";
import { Travel } from "./travel.js";

const page = $("#run");
const { api, socket, clientUrl, weighs } = page.dataset;
const urlOf = (id) => clientUrl.replace("00000000-0000-0000-0000-000000000000", id);

const outlook = new Outlook(api, () => {
  if (!feed.state) return;
  drawProgress(feed.state, outlook.known);
  metrics.redraw();
});
const drawer = new Drawer($("#client-drawer"), { api, urlOf, weighs });
const metrics = new MetricsPanel($("#metrics"), outlook);
const timeline = new Timeline($("#timeline"), openLog);
const heatmap = new Heatmap($("#by-round"), api, (client, opener) => drawer.open(client, opener));
const rounds = new RoundPanels($("#answers"), $("#traffic"));
const checkpoints = new Checkpoints($("#checkpoints"));
const travel = new Travel($("#travel"), (round) => lookAt(round));
const feed = new Feed(api, paint);
const log = new EventLog($("#events"), {
  loadEarlier: () => feed.earlier(),
  loadOnly: async ({ client, round }) => (await getJson(`${api}/events?${new URLSearchParams({ round, ...(client ? { client } : {}) })}`)).events,
  openBar: async (client, round) => {
    if (!(feed.state.rounds.size && isShown(client, round))) await goTo(round);
    timeline.find(client, round);
  },
});
let drawn = {};
let shownBefore = {};
let headShows = `${$("#run-head").dataset.status} ${$$("[data-commands] li").length}`;

function paint(state) {
  const shown = travel.view(state);
  drawProgress(state, outlook.known);
  paintPanels(shown, state);
  if (state.events !== drawn.events) log.draw(state);
  if (drawn.run) tell(drawn.run, state.run);
  keepHeadCurrent(state);
  drawer.draw(shown);
  drawn = state;
}

/** What shows the run as it is, or as it was. */
function paintPanels(shown, state) {
  const before = shownBefore;
  shownBefore = shown;
  if (shown === before) return;
  drawStrip(shown, urlOf);
  if (shown.past !== before.past || state.metrics !== drawn.metrics || state.run !== drawn.run || state.commands !== drawn.commands) metrics.draw(state, travel.round);
  if (shown.rounds !== before.rounds || shown.metrics !== before.metrics) drawKpis(shown);
  const ended = totals(shown) !== totals(before);
  if (ended || (hasEnded(shown) && shown.rounds !== before.rounds)) timeline.draw(shown);  // what moves meanwhile, it draws every second
  if (shown.rounds !== before.rounds || shown.commands !== before.commands) heatmap.draw(shown);
  if (ended || shown.rounds !== before.rounds) drawAnomalies(shown);
  if (ended) rounds.draw(shown);
  if (shown.models !== before.models || shown.metrics !== before.metrics) checkpoints.draw(shown);
}

/** Changes when a round ends. */
const totals = (state) => `${state.past} ${state.run?.roundsDone} ${state.run?.status} ${state.rounds?.size}`;

/** The page as of a round, or now. What is old is fetched first. */
async function lookAt(round) {
  if (!feed.state) return;
  if (round !== null && ![...feed.state.rounds.values()].some((one) => one.number === round && one.parts.size)) {
    await feed.lookBack(round).catch((error) => console.warn(`Participations could not be fetched: ${error.message}`));
  }
  if (round === null) log.showAll();
  else log.showOnly({ round, words: `Events of round ${round}` });
  paint(feed.state);
}

async function goTo(round) {
  travel.goTo(round);
  await lookAt(travel.round);
}

function isShown(client, round) {
  return [...feed.state.rounds.values()].slice(-3).some((one) => one.number === round && one.parts.has(client)) && travel.round === null;
}

function openLog(client, round) {
  log.showOnly({ client, round, words: `Events of ${clientOf(feed.state, client).name} in round ${round}` });
  $("#events").scrollIntoView({ block: "nearest" });
  $("#events .log").focus({ preventScroll: true });
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
  drawProgress(state, outlook.known);
  if (travel.round !== null) return;
  drawDuration(state);
  timeline.draw(state);
}
setInterval(tick, 1000);

onShortcut((key, event) => {
  if (key !== " " || isTyping(event) || event.target !== document.body) return;
  event.preventDefault();
  feed.togglePause();
});

function sayFailed(error) {
  console.error(error);
  const box = document.createElement("div");
  box.className = "callout bad";
  box.setAttribute("role", "alert");
  box.innerHTML = `${icon("warn")}<div><b class="b">The figures of this run could not be loaded.</b> <span class="sub">The run itself isn't affected. Reload the page to try again.</span></div>`;
  page.prepend(box);
}

if (travel.round === null) heatmap.fetch.now();
feed.start(socket).then(() => { if (travel.round !== null) lookAt(travel.round); }, sayFailed);
