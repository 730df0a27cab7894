// Lists that follow the federation: a region names what it shows (`data-follows="clients runs"`), and is fetched anew
// from its own address when the server says that this changed. Never while the reader is busy in it.
import { $, $$, announce } from "../dom.js";
import { isBusy } from "./busy.js";
import { LiveSocket } from "./socket.js";
import { fresh } from "./pill.js";

const GATHER_MS = 400;
/** Presence fades with time alone, without any message: look again now and then. */
const LOOK_AGAIN_MS = 20_000;

const due = new Set();
let timer = 0;

function flush() {
  timer = 0;
  if (document.hidden) return;
  for (const region of due) {
    if (!region.isConnected) due.delete(region);
    else if (!isBusy(region)) {
      due.delete(region);
      region.dispatchEvent(new CustomEvent("refresh"));
    }
  }
  fresh();
  if (due.size) timer = setTimeout(flush, GATHER_MS);
}

/** Fetch a region anew as soon as its reader isn't busy in it. */
export function renew(region) {
  due.add(region);
  timer ||= setTimeout(flush, GATHER_MS);
}

/** A list that is the page's own shows what the address says now: filters change it without a new page. */
document.body.addEventListener("htmx:configRequest", ({ detail }) => {
  if (detail.triggeringEvent?.type !== "refresh" || detail.path.split("?")[0] !== location.pathname) return;
  detail.path = location.pathname + location.search;
});

/** A reader may have become busy since the region was asked for. */
document.body.addEventListener("htmx:beforeSwap", (event) => {
  const { target, requestConfig } = event.detail;
  if (requestConfig?.triggeringEvent?.type !== "refresh" || !isBusy(target)) return;
  event.detail.shouldSwap = false;
  renew(target);
});

/** What a reader has opened or scrolled inside a region stays so when the region is replaced. */
function keepPlace({ target, detail }) {
  if (!detail.shouldSwap || !target.matches?.("[data-follows]")) return;
  const open = $$("details[id][open]", target).map((details) => details.id);
  const scrolled = $$(".table-wrap", target).map((box) => [box.scrollLeft, box.scrollTop]);
  document.body.addEventListener("htmx:afterSwap", () => {
    const region = document.getElementById(target.id);
    if (!region) return;
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    $$(".table-wrap", region).forEach((box, index) => { if (scrolled[index]) [box.scrollLeft, box.scrollTop] = scrolled[index]; });
  }, { once: true });
}
document.body.addEventListener("htmx:beforeSwap", keepPlace);

function mark(what) {
  $$("[data-follows]").filter((r) => !what || r.dataset.follows.split(" ").includes(what)).forEach(renew);
}

/** More alerts than before are said aloud. */
let alerts = Number($("#alert-count")?.dataset.count ?? 0);
document.body.addEventListener("htmx:afterSettle", ({ target }) => {
  if (target.id !== "alert-count") return;
  const now = Number(target.dataset.count);
  if (now > alerts) announce(`${now} open alert${now === 1 ? "" : "s"}`);
  alerts = now;
});

const path = document.body.dataset.socket;
if (path && $("[data-follows]")) {
  // A page that follows nothing but the count of alerts has a connection of its own to show, or none.
  const quiet = !$("[data-follows]:not(#alert-count)");
  const onFrame = (frame) => { if (frame.type === "changed") mark(frame.what); };
  const socket = new LiveSocket(path, { onFrame, catchUp: () => mark(), quiet });
  setInterval(() => { if (!socket.paused) mark("clients"); }, LOOK_AGAIN_MS);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) mark(); });
}
document.body.addEventListener("tokens-changed", () => mark("tokens"));
document.body.addEventListener("keys-changed", () => mark("keys"));
