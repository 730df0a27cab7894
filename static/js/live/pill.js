// What the reader is told of the connection: the pill in the top bar, and the notice over the bottom edge.
import { $, announce, icon, setText } from "../dom.js";
import { clock } from "../format.js";

const WORDS = { connecting: "Connecting", live: "Live", paused: "Paused", reconnecting: "Reconnecting", delayed: "Delayed" };
let asOf = Date.now();
let shown = "";
let act = () => {};

/** Note the time of the data on the page. */
export function fresh() {
  asOf = Date.now();
}

export function onPillAct(handler) {
  act = handler;
}

function notice(state) {
  const time = clock(asOf);
  return state === "paused"
    ? { text: "Live updates paused by you", sub: `Showing data as of ${time}.`, button: "Resume" }
    : {
        text: "Live updates paused – reconnecting",
        sub: `Showing data as of ${time}. Runs go on without this page.`,
        button: "Retry now",
      };
}

export function showState(state) {
  const pill = $(".live");
  if (!pill || state === shown) return;
  pill.hidden = false;
  pill.dataset.state = state;
  setText($(".t", pill), WORDS[state]);
  pill.setAttribute("aria-label", `Live updates: ${WORDS[state].toLowerCase()}. ${state === "paused" ? "Resume" : "Pause"}`);
  drawNotice(state);
  if (state === "reconnecting") announce("Connection lost. Reconnecting.");
  else if (state === "delayed") announce("Live updates are delayed by some seconds.");
  else if (state === "live" && shown === "reconnecting") announce("Connected again.");
  shown = state;
}

/** Nothing more will come: the run has ended. */
export function hidePill() {
  const pill = $(".live");
  if (pill) pill.hidden = true;
  drawNotice("live");
}

function drawNotice(state) {
  const stale = state === "paused" || state === "reconnecting";
  document.body.classList.toggle("is-stale", stale);
  $(".conn")?.remove();
  if (!stale) return;
  const { text, sub, button } = notice(state);
  const box = document.createElement("div");
  box.className = "conn";
  box.innerHTML = `${icon(state === "paused" ? "pause" : "warn")}<b class="b">${text}</b><span class="sub">${sub}</span><button class="btn sm" type="button">${button}</button>`;
  $("button", box).addEventListener("click", () => act());
  document.body.append(box);
}

$(".live")?.addEventListener("click", () => act());
