// Relative times: rendered by the server, kept true here.
import { $$, setText } from "./dom.js";
import { ago } from "./format.js";

const TICK_MS = 5000;

function refresh() {
  if (document.hidden) return;
  $$("time[data-ago]").forEach((time) => setText(time, ago(Date.parse(time.dateTime))));
}
setInterval(refresh, TICK_MS);
document.addEventListener("visibilitychange", refresh);
