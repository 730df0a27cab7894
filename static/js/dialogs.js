// Dialogs, typed confirmation, copy buttons. All by delegation: fragments come and go.
import { $, $$, toast } from "./dom.js";

/** With `autofocus` on the dialog itself, the dialog takes the focus, and not its close button. */
export function openDialog(dialog) {
  dialog.showModal();
  if (dialog.hasAttribute("autofocus")) {
    dialog.tabIndex = -1;
    dialog.focus();
  }
}

async function copy(button) {
  const source = button.closest(".code").querySelector("pre");
  try {
    await navigator.clipboard.writeText(source.textContent.trim());
    toast("Copied");
  } catch {
    getSelection().selectAllChildren(source);
    toast("Press Ctrl C to copy", "copy");
  }
}

function write(slot, text) {
  if (!slot.matches("textarea")) slot.textContent = text;
  else {
    slot.value = text;
    slot.setSelectionRange(0, 0);
  }
}

/** A dialog opened from a row of a list is filled with what the row's button says. */
function fill(dialog, values) {
  $$("[data-fill]", dialog).forEach((slot) => write(slot, values[slot.dataset.fill]));
  const form = $("form[data-action]", dialog);
  if (form) form.action = values.action;
  $$("[data-confirm]", dialog).forEach((input) => {
    if (values.confirm) input.dataset.confirm = values.confirm;
    input.value = "";
    input.dispatchEvent(new Event("input", { bubbles: true }));
  });
}

addEventListener("click", (event) => {
  const target = event.target.closest("[data-dialog], [data-close], [data-copy]");
  if (target?.dataset.dialog) {
    const dialog = $(`#${target.dataset.dialog}`);
    fill(dialog, target.dataset);
    // The address as it is now: much of a view changes without a new page.
    $$("[data-here]", dialog).forEach((field) => { field.value = location.pathname + location.search; });
    target.closest("[popover]")?.hidePopover();
    openDialog(dialog);
  } else if (target && "close" in target.dataset) target.closest("dialog").close();
  else if (target) copy(target);
  else if (event.target.matches("dialog:not([data-keep])") && isBackdrop(event)) event.target.close();
});

/** A click on the backdrop is a click on the dialog, outside its box. */
function isBackdrop({ target, clientX, clientY }) {
  const box = target.getBoundingClientRect();
  return clientX < box.left || clientX > box.right || clientY < box.top || clientY > box.bottom;
}

addEventListener("input", (event) => {
  const expected = event.target.dataset?.confirm;
  if (expected !== undefined) {
    event.target.form.querySelector(".danger-solid").disabled = event.target.value.trim() !== expected;
  }
});

addEventListener("change", (event) => {
  if (event.target.matches("[data-enables]")) $(`#${event.target.dataset.enables}`).disabled = !event.target.checked;
});

/** The one-time reveal stays until its reader says that the secret is stored; then it leaves the page altogether. */
document.addEventListener("cancel", (event) => {
  const seen = $("[data-enables]", event.target);
  if (event.target.matches("[data-keep]") && seen && !seen.checked) {
    event.preventDefault();
    toast("Copy the token first: it is not shown again", "warn");
  }
}, true);
document.addEventListener("close", (event) => {
  if (event.target.matches("[data-once]")) event.target.remove();
}, true);

document.addEventListener("htmx:afterSettle", () => {
  const fresh = $("dialog[data-open]");
  if (!fresh) return;
  delete fresh.dataset.open;
  $$("dialog[open]").forEach((dialog) => dialog.close());
  openDialog(fresh);
});

const asked = new URLSearchParams(location.search).get("dialog");
if (asked && /^[a-z-]+$/.test(asked)) {
  const dialog = $(`dialog#${asked}`);
  if (dialog) openDialog(dialog);
}
