// Rows of a list that can be ticked, for a form that takes them together: a <form data-selection="least most"
// data-selects="#list">. The selection is in the address, so that it outlives the list being fetched anew, and comes back.
// X ticks the row that has the focus, C sends the form.
import { $, $$, setQuery } from "./dom.js";
import { onShortcut } from "./keys.js";

const bar = $("[data-selection]");
const [least, most] = bar.dataset.selection.split(" ").map(Number);
const list = () => $(bar.dataset.selects);
const chosen = new Set((new URLSearchParams(location.search).get("sel") ?? "").split(",").filter(Boolean));

const boxes = () => $$(`input[form="${bar.id}"]`, list());

function why() {
  if (chosen.size < least) return chosen.size ? `Tick ${least - chosen.size} more to compare` : "";
  return chosen.size > most ? `At most ${most} can be compared` : "";
}

/** What leads to other rows of the list, or to another order, keeps the selection. */
function keepSelection() {
  for (const link of $$("a[href^='?']", list())) {
    const { searchParams } = new URL(link.href);
    searchParams.set("sel", [...chosen].join(","));
    if (!chosen.size) searchParams.delete("sel");
    link.setAttribute("href", `?${searchParams}`);
  }
}

function show() {
  for (const box of boxes()) box.checked = chosen.has(box.value);
  keepSelection();
  bar.hidden = chosen.size === 0;
  $("[data-n]", bar).textContent = chosen.size;
  $("[data-why]", bar).textContent = why();
  $("[type=submit]", bar).disabled = why() !== "";
}

function changed() {
  setQuery({ sel: [...chosen].join(",") });
  show();
}

document.addEventListener("change", ({ target }) => {
  if (target.getAttribute?.("form") !== bar.id) return;
  if (target.checked) chosen.add(target.value);
  else chosen.delete(target.value);
  changed();
});
bar.addEventListener("reset", () => {
  chosen.clear();
  changed();
});
/** Those ticked on other pages of the list have no box here to be sent by. */
bar.addEventListener("submit", (event) => {
  event.preventDefault();
  location.assign(`${bar.action}?runs=${[...chosen].join(",")}`);
});
document.addEventListener("htmx:afterSettle", show);
document.addEventListener("htmx:replacedInHistory", () => setQuery({ sel: [...chosen].join(",") })); // a filter's address has no selection

onShortcut((key) => {
  if (key === "x") document.activeElement.closest("tr")?.querySelector(`input[form="${bar.id}"]`)?.click();
  else if (key === "c" && !why() && chosen.size) bar.requestSubmit();
});

show();
