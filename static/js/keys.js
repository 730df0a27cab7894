// Single-key shortcuts: off while a field or a dialog has the focus, and switched off altogether in the account menu.
import { $, $$, esc, isTyping } from "./dom.js";
import { openDialog } from "./dialogs.js";
import { isListed, KEYMAP, spelled } from "./keymap.js";

const STORE = "fedui.keys";
const CHORD_MS = 1200;
let chordAt = 0;

export const shortcutsOn = () => localStorage.getItem(STORE) !== "off";

function listen(handle) {
  addEventListener("keydown", (event) => {
    const busy = event.ctrlKey || event.metaKey || event.altKey || isTyping(event) || $("dialog[open]");
    if (!busy && shortcutsOn()) handle(event.key, event);
  });
}

/** Call `handle(key, event)` for a single key of the key map that is meant as a shortcut. */
export function onShortcut(handle) {
  listen((key, event) => { if (isListed(key) && !event.chord) handle(key, event); });
}

/** G, then a letter. Marks its second key, which means nothing else. */
listen((key, event) => {
  if (Date.now() - chordAt >= CHORD_MS) return;
  chordAt = 0;
  event.chord = true;
  $(`.side a[data-go="${CSS.escape(key)}"]`)?.click();
});

onShortcut((key, event) => {
  if (key === "g") chordAt = Date.now();
  else if (key === "?") showSheet();
  else if (key === "n") $("[data-key-n]")?.click();
  else if (key === "j" || key === "k") step(key === "j" ? 1 : -1);
  else if (key === "/") {
    event.preventDefault();
    $(".toolbar .find input")?.focus();
  }
});

/** Along the rows of the page's tables, link by link: Enter opens the one that has the focus. */
function step(by) {
  const rows = $$("main tbody tr:has(a)").filter((row) => row.checkVisibility());
  const at = rows.findIndex((row) => row.contains(document.activeElement));
  const next = rows[Math.min(rows.length - 1, Math.max(0, at + by))];
  $("a", next ?? document.createElement("tr"))?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

const keycaps = (keys) => keys.map((key) => `<kbd>${esc(key)}</kbd>`).join(" ");
const list = (title, rows) =>
  `<section><h3>${esc(title)}</h3><dl class="kv keys">${rows.map(([keys, text]) => `<dt>${keycaps(keys)}</dt><dd>${esc(text)}</dd>`).join("")}</dl></section>`;

export function showSheet() {
  const pages = $$(".side a[data-go]").map((link) => [["G", link.dataset.go.toUpperCase()], $("[data-label]", link).textContent]);
  const lists = Object.entries(KEYMAP).map(([title, rows]) => [title, rows.map(([key, text]) => [spelled(key), text])]);
  if (pages.length) lists.splice(1, 0, ["Go to", pages]);
  $("#shortcuts [data-sheet]").innerHTML = lists.map(([title, rows]) => list(title, rows)).join("");
  openDialog($("#shortcuts"));
}

const toggle = $("[data-keys-toggle]");
if (toggle) {
  toggle.checked = shortcutsOn();
  toggle.addEventListener("change", () => localStorage.setItem(STORE, toggle.checked ? "on" : "off"));
}
$$("[data-shortcuts]").forEach((button) => button.addEventListener("click", () => {
  button.closest("[popover]")?.hidePopover();
  showSheet();
}));
