// Single-key shortcuts: off while a field or a dialog has the focus, and switched off altogether in the account menu.
import { $, $$, isTyping } from "./dom.js";
import { openDialog } from "./dialogs.js";

const STORE = "fedui.keys";
const CHORD_MS = 1200;
let chordAt = 0;

export const shortcutsOn = () => localStorage.getItem(STORE) !== "off";

/** Call `handle(key, event)` for a single key that is meant as a shortcut. */
export function onShortcut(handle) {
  addEventListener("keydown", (event) => {
    const busy = event.ctrlKey || event.metaKey || event.altKey || isTyping(event) || $("dialog[open]");
    if (!busy && shortcutsOn()) handle(event.key, event);
  });
}

onShortcut((key, event) => {
  if (Date.now() - chordAt < CHORD_MS) {
    chordAt = 0;
    $(`.side a[data-go="${CSS.escape(key)}"]`)?.click();
  } else if (key === "g") chordAt = Date.now();
  else if (key === "?") openDialog($("#shortcuts"));
  else if (key === "n") $("[data-key-n]")?.click();
  else if (key === "/") {
    event.preventDefault();
    $(".toolbar .find input")?.focus();
  }
});

const toggle = $("[data-keys-toggle]");
if (toggle) {
  toggle.checked = shortcutsOn();
  toggle.addEventListener("change", () => localStorage.setItem(STORE, toggle.checked ? "on" : "off"));
}
$$("[data-shortcuts]").forEach((button) => button.addEventListener("click", () => {
  button.closest("[popover]")?.hidePopover();
  openDialog($("#shortcuts"));
}));
